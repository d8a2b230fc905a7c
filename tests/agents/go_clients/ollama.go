package main

import (
	"context"
	"strings"

	"github.com/ollama/ollama/api"
)

// It finds the service by OLLAMA_HOST, and needs a proxy that adds the key.
func ollama(ctx context.Context) {
	client, err := api.ClientFromEnvironment()
	check(err == nil, "client", err)
	check(client.Heartbeat(ctx) == nil, "heartbeat", nil)
	version, err := client.Version(ctx)
	check(err == nil && version == "0.34.0", "version", err)

	var text strings.Builder
	var last api.ChatResponse
	messages := []api.Message{{Role: "user", Content: "hello"}}
	err = client.Chat(ctx, &api.ChatRequest{Model: model, Messages: messages}, func(part api.ChatResponse) error {
		text.WriteString(part.Message.Content)
		last = part
		return nil
	})
	check(err == nil && text.String() == "You said: hello", "chat", err)
	check(last.Done && last.EvalCount > 0 && last.TotalDuration > 0, "counts", last)

	text.Reset()
	err = client.Generate(ctx, &api.GenerateRequest{Model: model, Prompt: "hello"}, func(part api.GenerateResponse) error {
		text.WriteString(part.Response)
		return nil
	})
	check(err == nil && text.String() == "You said: hello", "generate", err)

	tool := api.Tool{Type: "function", Function: api.ToolFunction{Name: "get_weather"}}
	tool.Function.Parameters = api.ToolFunctionParameters{Type: "object", Properties: api.NewToolPropertiesMap()}
	tool.Function.Parameters.Properties.Set("location", api.ToolProperty{Type: api.PropertyType{"string"}})
	var called api.Message
	request := api.ChatRequest{Model: model, Messages: []api.Message{{Role: "user", Content: question}}, Tools: api.Tools{tool}}
	err = client.Chat(ctx, &request, func(part api.ChatResponse) error {
		if len(part.Message.ToolCalls) > 0 {
			called = part.Message
		}
		return nil
	})
	check(err == nil && len(called.ToolCalls) == 1, "call", err)
	call := called.ToolCalls[0].Function
	check(call.Name == "get_weather" && call.Arguments.String() == arguments, "arguments", call)
	result := api.Message{Role: "tool", Content: "sunny", ToolName: call.Name, ToolCallID: called.ToolCalls[0].ID}
	request.Messages = append(request.Messages, called, result)
	text.Reset()
	err = client.Chat(ctx, &request, func(part api.ChatResponse) error {
		text.WriteString(part.Message.Content)
		return nil
	})
	check(err == nil && text.String() == "You said: sunny", "result", err)

	embedded, err := client.Embed(ctx, &api.EmbedRequest{Model: "embed-small", Input: []string{"Hello", "you"}})
	check(err == nil && len(embedded.Embeddings) == 2 && embedded.Embeddings[0][0] == 5, "embed", err)

	list, err := client.List(ctx)
	check(err == nil && len(list.Models) > 1 && len(list.Models[0].Digest) >= 12, "list", err)
	shown, err := client.Show(ctx, &api.ShowRequest{Model: model})
	check(err == nil && len(shown.Capabilities) == 4, "show", err)
	running, err := client.ListRunning(ctx)
	check(err == nil && len(running.Models) > 0, "running", err)

	err = client.Delete(ctx, &api.DeleteRequest{Model: model})
	check(err != nil && strings.Contains(err.Error(), "operator"), "delete", err)
}
