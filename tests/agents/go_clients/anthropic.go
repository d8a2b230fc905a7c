package main

import (
	"context"
	"errors"

	"github.com/anthropics/anthropic-sdk-go/v2"
	"github.com/anthropics/anthropic-sdk-go/v2/option"
)

func messages(ctx context.Context) {
	connect := func(key string) anthropic.Client {
		return anthropic.NewClient(option.WithBaseURL(baseURL), option.WithAPIKey(key), option.WithMaxRetries(0))
	}
	client := connect(key)
	ask := func(text string) anthropic.MessageNewParams {
		said := []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock(text))}
		return anthropic.MessageNewParams{Model: model, MaxTokens: 256, Messages: said}
	}

	answer, err := client.Messages.New(ctx, ask("hello"))
	check(err == nil && answer.Content[0].Text == "You said: hello", "answer", err)
	check(answer.StopReason == "end_turn" && answer.Usage.OutputTokens > 0, "end", answer.RawJSON())

	stream := client.Messages.NewStreaming(ctx, ask("15 * 37"))
	whole := anthropic.Message{}
	for stream.Next() {
		err := whole.Accumulate(stream.Current())
		check(err == nil, "event", err)
	}
	check(stream.Err() == nil && len(whole.Content) == 2, "stream", stream.Err())
	check(whole.Content[0].Thinking == "15 * 37 = 555." && whole.Content[1].Text == "555", "blocks", whole.Content)
	check(whole.StopReason == "end_turn" && whole.Usage.OutputTokens > 0, "end", whole.RawJSON())

	request := ask(question)
	schema := anthropic.ToolInputSchemaParam{Properties: properties}
	request.Tools = []anthropic.ToolUnionParam{anthropic.ToolUnionParamOfTool(schema, "get_weather")}
	called, err := client.Messages.New(ctx, request)
	check(err == nil && called.StopReason == "tool_use", "call", err)
	call := called.Content[0].AsToolUse()
	check(string(call.Input) == arguments, "arguments", string(call.Input))
	result := anthropic.NewUserMessage(anthropic.NewToolResultBlock(call.ID, "sunny", false))
	request.Messages = append(request.Messages, called.ToParam(), result)
	last, err := client.Messages.New(ctx, request)
	check(err == nil && last.Content[0].Text == "You said: sunny", "result", err)

	said := ask("hello").Messages
	counted, err := client.Messages.CountTokens(ctx, anthropic.MessageCountTokensParams{Model: model, Messages: said})
	check(err == nil && counted.InputTokens > 0, "count", err)
	models, err := client.Models.List(ctx, anthropic.ModelListParams{})
	check(err == nil && len(models.Data) > 0, "models", err)

	stranger := connect("cbk_wrong")
	_, err = stranger.Messages.New(ctx, ask("hello"))
	var refused *anthropic.Error
	check(errors.As(err, &refused) && refused.StatusCode == 401, "refusal", err)
	check(refused.Type() == "authentication_error", "its type", refused.RawJSON())
}
