package main

import (
	"context"
	"errors"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/responses"
)

func openaiClient(key string) openai.Client {
	return openai.NewClient(option.WithBaseURL(baseURL+"/v1"), option.WithAPIKey(key), option.WithMaxRetries(0))
}

func chatCompletions(ctx context.Context) {
	client := openaiClient(key)
	ask := func(text string) openai.ChatCompletionNewParams {
		said := []openai.ChatCompletionMessageParamUnion{openai.UserMessage(text)}
		return openai.ChatCompletionNewParams{Model: model, Messages: said}
	}

	answer, err := client.Chat.Completions.New(ctx, ask("hello"))
	check(err == nil && answer.Choices[0].Message.Content == "You said: hello", "answer", err)
	check(answer.Usage.TotalTokens > 0, "usage", answer.Usage)

	request := ask("Grüße 🙂")
	request.StreamOptions.IncludeUsage = openai.Bool(true)
	stream := client.Chat.Completions.NewStreaming(ctx, request)
	whole := openai.ChatCompletionAccumulator{}
	for stream.Next() {
		check(whole.AddChunk(stream.Current()), "chunk", stream.Current().RawJSON())
	}
	check(stream.Err() == nil, "stream", stream.Err())
	check(whole.Choices[0].Message.Content == "You said: Grüße 🙂", "text", whole.Choices)
	check(whole.Choices[0].FinishReason == "stop" && whole.Usage.TotalTokens > 0, "end", whole.RawJSON())

	request = ask(question)
	request.Tools = []openai.ChatCompletionToolUnionParam{
		openai.ChatCompletionFunctionTool(openai.FunctionDefinitionParam{
			Name:       "get_weather",
			Parameters: openai.FunctionParameters{"type": "object", "properties": properties},
		}),
	}
	called, err := client.Chat.Completions.New(ctx, request)
	check(err == nil && called.Choices[0].FinishReason == "tool_calls", "call", err)
	message := called.Choices[0].Message
	check(message.ToolCalls[0].Function.Arguments == arguments, "arguments", message.ToolCalls)
	result := openai.ToolMessage("sunny", message.ToolCalls[0].ID)
	request.Messages = append(request.Messages, message.ToParam(), result)
	last, err := client.Chat.Completions.New(ctx, request)
	check(err == nil && last.Choices[0].Message.Content == "You said: sunny", "result", err)

	texts := openai.EmbeddingNewParamsInputUnion{OfArrayOfStrings: []string{"Hello", "you"}}
	embedded, err := client.Embeddings.New(ctx, openai.EmbeddingNewParams{Model: "embed-small", Input: texts})
	check(err == nil && len(embedded.Data) == 2 && embedded.Data[0].Embedding[0] == 5, "embeddings", err)
	models, err := client.Models.List(ctx)
	check(err == nil && len(models.Data) > 0, "models", err)

	stranger := openaiClient("cbk_wrong")
	_, err = stranger.Chat.Completions.New(ctx, ask("hello"))
	var refused *openai.Error
	check(errors.As(err, &refused) && refused.StatusCode == 401 && refused.Code == "invalid_token", "refusal", err)
}

func openaiResponses(ctx context.Context) {
	client := openaiClient(key)
	ask := func(input responses.ResponseNewParamsInputUnion) responses.ResponseNewParams {
		return responses.ResponseNewParams{Model: model, Input: input, Store: openai.Bool(false)}
	}
	text := func(text string) responses.ResponseNewParamsInputUnion {
		return responses.ResponseNewParamsInputUnion{OfString: openai.String(text)}
	}

	answer, err := client.Responses.New(ctx, ask(text("hello")))
	check(err == nil && answer.OutputText() == "You said: hello", "answer", err)
	check(answer.Usage.TotalTokens > 0, "usage", answer.Usage)

	stream := client.Responses.NewStreaming(ctx, ask(text("Grüße 🙂")))
	streamed, completed := "", ""
	for number := int64(0); stream.Next(); number++ {
		event := stream.Current()
		check(event.SequenceNumber == number, "number", event.RawJSON())
		switch event := event.AsAny().(type) {
		case responses.ResponseTextDeltaEvent:
			streamed += event.Delta
		case responses.ResponseCompletedEvent:
			completed = event.Response.OutputText()
		}
	}
	check(stream.Err() == nil, "stream", stream.Err())
	check(streamed == "You said: Grüße 🙂" && completed == streamed, "text", streamed)

	question := responses.ResponseInputItemParamOfMessage(question, responses.EasyInputMessageRoleUser)
	items := responses.ResponseInputParam{question}
	request := ask(responses.ResponseNewParamsInputUnion{OfInputItemList: items})
	parameters := map[string]any{"type": "object", "properties": properties}
	tool := responses.FunctionToolParam{Name: "get_weather", Parameters: parameters}
	request.Tools = []responses.ToolUnionParam{{OfFunction: &tool}}
	called, err := client.Responses.New(ctx, request)
	check(err == nil && len(called.Output) == 1, "call", err)
	call := called.Output[0].AsFunctionCall()
	check(call.Name == "get_weather" && call.Arguments == arguments, "arguments", call.RawJSON())
	again := call.ToParam()
	result := responses.ResponseInputItemParamOfFunctionCallOutput("sunny")
	result.OfFunctionCallOutput.CallID = openai.String(call.CallID)
	items = append(items, responses.ResponseInputItemUnionParam{OfFunctionCall: &again}, result)
	request.Input = responses.ResponseNewParamsInputUnion{OfInputItemList: items}
	last, err := client.Responses.New(ctx, request)
	check(err == nil && last.OutputText() == "You said: sunny", "result", err)

	request = ask(text("hello"))
	request.Model = "no/such:one"
	_, err = client.Responses.New(ctx, request)
	var refused *openai.Error
	check(errors.As(err, &refused) && refused.StatusCode == 404 && refused.Code == "model_not_found", "refusal", err)
}
