// What Go's SDKs need of the API that is named as the argument. The model server behind it plays the answers that
// tests/agents/main.rs lists.
package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

var (
	baseURL = os.Getenv("BASE_URL")
	key     = os.Getenv("API_KEY")
	model   = os.Getenv("MODEL")
)

const question = "What is the weather in San Francisco?"

// The schema of the one tool, get_weather, and the arguments that the model calls it with.
var (
	properties = map[string]any{"location": map[string]string{"type": "string"}}
	arguments  = `{"location":"San Francisco"}`
)

func check(holds bool, what string, got any) {
	if !holds {
		fmt.Fprintf(os.Stderr, "FAILED %s: %v\n", what, got)
		os.Exit(1)
	}
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	clients := map[string]func(context.Context){
		"chat_completions": chatCompletions,
		"responses":        openaiResponses,
		"messages":         messages,
		"ollama":           ollama,
	}
	clients[os.Args[1]](ctx)
}
