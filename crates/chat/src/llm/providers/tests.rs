//! Recorded answers, cut at every byte: the parsers must not care where a read ends.

use std::{fs, path::Path};

use proptest::prelude::*;

use crate::llm::{
    chunk::Chunk,
    providers::{Batch, ollama::OllamaParser, openai::OpenAiParser, response_stream::Parser},
    redaction::Redactor,
    request::ChatRequest,
};

/// What a parser makes of an answer that comes in these pieces: its chunks and its error.
fn read<'a>(
    mut parser: impl Parser,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Chunk>, Option<String>) {
    let mut batch = Batch::default();
    let mut failed = None;
    for piece in pieces {
        failed = parser.feed(piece, &mut batch).err();
        if failed.is_some() || batch.is_finished() {
            break;
        }
    }
    if failed.is_none() && !batch.is_finished() {
        failed = parser.finish(&mut batch).err();
    }
    assert_eq!(failed.is_none(), batch.is_finished(), "an end or an error, and not both");
    (
        batch.chunks.into_iter().map(without_made_ids).collect(),
        failed.map(|error| error.describe(Some(&Redactor::default()))),
    )
}

/// Ids that are made here differ each time.
fn without_made_ids(chunk: Chunk) -> Chunk {
    match chunk {
        Chunk::ToolCall(mut call) if call.id.len() == 37 => {
            call.id = "made".to_owned();
            Chunk::ToolCall(call)
        }
        chunk => chunk,
    }
}

fn bodies(folder: &str, ending: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(folder);
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let chosen = files.filter(|path| path.to_string_lossy().ends_with(ending));
    chosen.map(|path| (path.display().to_string(), fs::read(&path).unwrap())).collect()
}

fn check_every_cut<P: Parser>(bodies: Vec<(String, Vec<u8>)>, parser: impl Fn() -> P) {
    assert!(bodies.len() >= 10);
    for (name, body) in bodies {
        let whole = read(parser(), [body.as_slice()]);
        assert_eq!(read(parser(), body.chunks(1)), whole, "{name}, byte by byte");
        for at in 0..=body.len() {
            let (head, tail) = body.split_at(at);
            assert_eq!(read(parser(), [head, tail]), whole, "{name}, cut at {at}");
        }
    }
}

fn ollama_answer() -> impl Parser {
    OllamaParser::new(&ChatRequest { model: "m".to_owned(), ..ChatRequest::default() })
}

#[test]
fn ollama_answers_read_the_same_wherever_they_are_cut() {
    check_every_cut(bodies("ollama", ".ndjson"), ollama_answer);
}

#[test]
fn openai_answers_read_the_same_wherever_they_are_cut() {
    check_every_cut(bodies("openai", ".sse"), OpenAiParser::default);
}

#[test]
fn a_frame_may_be_anything_that_json_can_be_without_a_panic() {
    for value in [
        "null",
        "1",
        "\"x\"",
        "[]",
        "{}",
        "[{}]",
        "{\"choices\":1}",
        "{\"choices\":[null]}",
        "{\"choices\":[{}]}",
        "{\"choices\":[{\"delta\":null,\"finish_reason\":null}]}",
        "{\"message\":null}",
        "{\"message\":{\"content\":null}}",
        "{\"message\":{\"content\":7}}",
        "{\"choices\":[{\"delta\":{\"content\":7}}]}",
        "{\"error\":{}}",
        "{\"error\":7}",
    ] {
        let (_, failed) = read(ollama_answer(), [value.as_bytes()]);
        assert!(failed.is_some(), "{value}");
        let (_, failed) = read(OpenAiParser::default(), [format!("data: {value}\n\n").as_bytes()]);
        assert!(failed.is_some(), "{value}");
    }
}

#[test]
fn tool_calls_are_told_apart_by_index_and_by_id() {
    let calls = |deltas: &[&str]| {
        let mut body: String = deltas
            .iter()
            .map(|delta| {
                format!("data: {{\"choices\":[{{\"delta\":{{\"tool_calls\":[{delta}]}}}}]}}\n\n")
            })
            .collect();
        body.push_str("data: [DONE]\n\n");
        let (chunks, failed) = read(OpenAiParser::default(), [body.as_bytes()]);
        assert_eq!(failed, None);
        chunks
            .into_iter()
            .filter_map(|chunk| match chunk {
                Chunk::ToolCall(call) => Some((call.id, call.name, call.arguments)),
                _ => None,
            })
            .map(|(id, name, arguments)| format!("{id} {name} {arguments}"))
            .collect::<Vec<_>>()
    };
    let two = ["a f {\"x\":1}", "b g {}"];
    // Every call under index 0, as some servers number them.
    assert_eq!(
        calls(&[
            r#"{"index":0,"id":"a","function":{"name":"f","arguments":"{\"x\":1}"}}"#,
            r#"{"index":0,"id":"b","function":{"name":"g","arguments":"{}"}}"#,
        ]),
        two
    );
    // No index, later parts with an empty name, or with their id again.
    assert_eq!(
        calls(&[
            r#"{"id":"a","function":{"name":"f","arguments":"{\"x\""}}"#,
            r#"{"function":{"name":"","arguments":":1}"}}"#,
            r#"{"id":"b","function":{"name":"g"}}"#,
            r#"{"id":"b","function":{"arguments":{}}}"#,
        ]),
        two
    );
    // Parts that take turns.
    assert_eq!(
        calls(&[
            r#"{"index":0,"id":"a","function":{"name":"f","arguments":""}}"#,
            r#"{"index":1,"id":"b","function":{"name":"g","arguments":"{"}}"#,
            r#"{"index":0,"id":"","function":{"arguments":"{\"x\":1}"}}"#,
            r#"{"index":1,"id":null,"function":{"name":null,"arguments":"}"}}"#,
        ]),
        two
    );
    assert_eq!(calls(&[r#"{"index":0,"function":{"name":"f"}}"#]), ["made f {}"]);
    // Whole calls without index and id: in one delta, in two, and all under index 0.
    let f = r#"{"function":{"name":"f","arguments":"{\"x\":1}"}}"#;
    let g = r#"{"function":{"name":"f","arguments":"{\"x\":2}"}}"#;
    let both = ["made f {\"x\":1}", "made f {\"x\":2}"];
    assert_eq!(calls(&[&format!("{f},{g}")]), both);
    assert_eq!(calls(&[f, g]), both);
    let numbered = |call: &str| call.replacen('{', r#"{"index":0,"#, 1);
    assert_eq!(calls(&[&numbered(f), &numbered(g)]), both);
    // A name that is said again with every part, and an id or an index of the wrong type.
    assert_eq!(
        calls(&[
            r#"{"index":0,"function":{"name":"f","arguments":"{\"x\""}}"#,
            r#"{"index":0,"function":{"name":"f","arguments":":1}"}}"#,
            r#"{"index":0,"function":{"name":"f","arguments":""}}"#,
        ]),
        ["made f {\"x\":1}"]
    );
    assert_eq!(calls(&[r#"{"index":"0","id":7,"function":{"name":"f"}}"#, "null"]), ["made f {}"]);
}

/// An OpenAI-compatible answer of these parts of tool calls says.
fn calls_summary(parts: &[&str]) -> Result<String, String> {
    let frame = |part: &&str| format!(r#"{{"choices":[{{"delta":{{"tool_calls":[{part}]}}}}]}}"#);
    let mut frames: Vec<_> = parts.iter().map(frame).collect();
    frames.push(r#"{"choices":[{"delta":{},"finish_reason":"tool_calls"}]}"#.to_owned());
    openai_summary(&frames.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn a_part_that_says_nothing_or_has_another_index_loses_no_call() {
    let whole = r#"{"index":0,"id":"a","function":{"name":"f","arguments":"{\"x\":1}"}}"#;
    let one = Ok("<f {\"x\":1}> ToolCalls None".to_owned());
    for empty in [
        r#"{"index":1,"id":"","function":{"name":"","arguments":""}}"#,
        r#"{"index":1}"#,
        r#"{"index":1,"id":"b"}"#,
        r#"{"index":1,"function":{"arguments":" "}}"#,
        "{}",
        "null",
    ] {
        assert_eq!(calls_summary(&[whole, empty]), one, "{empty}");
        assert_eq!(calls_summary(&[empty, whole]), one, "{empty}");
        assert_eq!(calls_summary(&[empty]), Ok(" Stop None".to_owned()), "{empty}");
    }
    for (first, then) in [
        (r#""id":"a""#, r#""index":0"#),
        (r#""id":"a","index":null"#, r#""index":0"#),
        (r#""id":"a","index":null"#, r#""index":0,"id":"a""#),
        (r#""id":"a","index":0"#, r#""index":1"#),
        (r#""id":"a","index":0"#, r#""index":1,"id":"a""#),
        (r#""index":0"#, r#""index":1,"id":"a""#),
    ] {
        let begin = format!(r#"{{{first},"function":{{"name":"f","arguments":"{{\"x\""}}}}"#);
        let go_on = format!(r#"{{{then},"function":{{"arguments":":1}}"}}}}"#);
        assert_eq!(calls_summary(&[&begin, &go_on]), one, "{first} {then}");
    }
    let announced = r#"{"index":1,"id":"b"}"#;
    let named = r#"{"index":1,"function":{"name":"g"}}"#;
    let two = Ok("<f {\"x\":1}><g {}> ToolCalls None".to_owned());
    assert_eq!(calls_summary(&[whole, announced, named]), two);
    let nameless = r#"{"index":1,"function":{"arguments":"{}"}}"#;
    assert!(calls_summary(&[whole, nameless]).unwrap_err().contains("without a name"));
}

#[test]
fn calls_that_grow_in_turns_keep_their_arguments_apart() {
    let both = Ok("<f {\"x\":1}><g {\"y\":2}> ToolCalls None".to_owned());
    // What tells them apart: at the beginning and later on, of the one and of the other.
    for [f, f_later, g, g_later] in [
        [
            r#""index":0,"id":"a""#,
            r#""index":0,"id":"a""#,
            r#""index":0,"id":"b""#,
            r#""index":0,"id":"b""#,
        ],
        [r#""index":0,"id":"a""#, r#""id":"a""#, r#""index":0,"id":"b""#, r#""index":7,"id":"b""#],
        [r#""index":"0""#, r#""index":"0""#, r#""index":"1""#, r#""index":"1""#],
        [r#""index":0.0"#, r#""index":0"#, r#""index":1.0"#, r#""index":"1""#],
        [
            r#""index":0,"id":"""#,
            r#""index":0,"id":" ""#,
            r#""index":1,"id":" ""#,
            r#""index":1,"id":" ""#,
        ],
        [
            r#""index":0,"id":"a""#,
            r#""index":0,"id":"a""#,
            r#""index":1,"id":"a""#,
            r#""index":1,"id":"a""#,
        ],
    ] {
        let begin = |call: &str, name: &str, member: &str| {
            format!(r#"{{{call},"function":{{"name":"{name}","arguments":"{{\"{member}\":"}}}}"#)
        };
        let go_on = |call: &str, name: &str, value: u8| {
            format!(r#"{{{call},"function":{{{name}"arguments":"{value}}}"}}}}"#)
        };
        let parts =
            [begin(f, "f", "x"), begin(g, "g", "y"), go_on(f_later, "", 1), go_on(g_later, "", 2)];
        assert_eq!(calls_summary(&parts.each_ref().map(String::as_str)), both, "{parts:?}");
        // The name with every part.
        let (f_named, g_named) = (r#""name":"f","#, r#""name":"g","#);
        let parts =
            [begin(f, "f", "x"), begin(g, "g", "y"), go_on(f, f_named, 1), go_on(g, g_named, 2)];
        assert_eq!(calls_summary(&parts.each_ref().map(String::as_str)), both, "{parts:?}");
    }
}

/// What an OpenAI-compatible answer of these frames says: thoughts in brackets, text, calls, the finish and the usage.
fn openai_summary(frames: &[&str]) -> Result<String, String> {
    let mut body: String = frames.iter().map(|frame| format!("data: {frame}\n\n")).collect();
    body.push_str("data: [DONE]\n\n");
    summary(read(OpenAiParser::default(), [body.as_bytes()]))
}

/// The same of Ollama's lines.
fn ollama_summary(lines: &[&str]) -> Result<String, String> {
    let body = lines.join("\n");
    summary(read(ollama_answer(), [body.as_bytes()]))
}

fn summary((chunks, failed): (Vec<Chunk>, Option<String>)) -> Result<String, String> {
    if let Some(error) = failed {
        return Err(error);
    }
    let piece = |chunk: Chunk| match chunk {
        Chunk::Thinking(text) => format!("({text})"),
        Chunk::Text(text) => text,
        Chunk::ToolCall(call) => format!("<{} {}>", call.name, call.arguments),
        Chunk::End { finish, usage, .. } => {
            let usage = usage.map(|usage| (usage.prompt_tokens, usage.completion_tokens));
            format!(" {finish:?} {usage:?}")
        }
        Chunk::Queued { .. } | Chunk::Started { .. } => unreachable!(),
    };
    Ok(chunks.into_iter().map(piece).collect())
}

const HI: &str = r#"{"choices":[{"delta":{"content":"Hi"}}]}"#;

#[test]
fn an_odd_member_beside_the_text_spoils_no_answer() {
    let stop = r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#;
    for odd in [
        r#"{"usage":"none"}"#,
        r#"{"usage":[7,3]}"#,
        r#"{"usage":true}"#,
        r#"{"usage":{"prompt_tokens":-7,"completion_tokens":3}}"#,
        r#"{"usage":{"prompt_tokens":9223372036854775808,"completion_tokens":3}}"#,
        r#"{"choices":[null]}"#,
        r#"{"choices":[{"index":"0","delta":{"reasoning":false,"reasoning_content":{"x":1}}}]}"#,
        r#"{"choices":[{"delta":null,"finish_reason":false}]}"#,
        r#"{"choices":[{"index":"1","delta":{"content":"Hello"}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[null]},"finish_reason":{"type":"stop"}}]}"#,
        r#"{"error":false,"choices":[]}"#,
        r#"{"error":{},"object":null}"#,
    ] {
        assert_eq!(openai_summary(&[HI, odd, stop]), Ok("Hi Stop None".to_owned()), "{odd}");
    }
    let floats = r#"{"choices":[],"usage":{"prompt_tokens":7.0,"completion_tokens":3.0}}"#;
    assert_eq!(openai_summary(&[HI, floats, stop]), Ok("Hi Stop Some((7, 3))".to_owned()));
    let line = r#"{"message":{"content":"Hi","thinking":false},"done":false,"error":""}"#;
    let last = r#"{"done":true,"done_reason":5,"prompt_eval_count":7.0,"eval_count":99999999999,"error":false}"#;
    assert_eq!(ollama_summary(&[line, last]), Ok("Hi Stop Some((7, 0))".to_owned()));
}

#[test]
fn what_says_everything_again_beside_its_delta_is_heard_once() {
    let frame = r#"{"choices":[{"message":{"content":"Hi"},"delta":{"content":"Hi"}}]}"#;
    let last = r#"{"choices":[{"message":{"content":"Hi you"},"delta":{"content":" you"},"finish_reason":"stop"}]}"#;
    assert_eq!(openai_summary(&[frame, last]), Ok("Hi you Stop None".to_owned()));
}

#[test]
fn thoughts_are_understood_in_every_dialect() {
    for delta in [
        r#"{"reasoning":"Hm"}"#,
        r#"{"reasoning_content":"Hm"}"#,
        r#"{"reasoning":"Hm","reasoning_content":"Hm"}"#,
        r#"{"reasoning":"Hm","reasoning_details":[{"type":"reasoning.text","text":"Hm"}]}"#,
        r#"{"reasoning":null,"reasoning_details":[{"type":"reasoning.summary","summary":"Hm"}]}"#,
        r#"{"content":[{"type":"thinking","thinking":[{"type":"text","text":"Hm"}]}]}"#,
        r#"{"content":[{"type":"thinking","thinking":"Hm"}]}"#,
    ] {
        let frame = format!(r#"{{"choices":[{{"delta":{delta}}}]}}"#);
        assert_eq!(openai_summary(&[&frame, HI]), Ok("(Hm)Hi Stop None".to_owned()), "{delta}");
    }
}

#[test]
fn every_word_for_a_full_answer_is_length() {
    for word in ["length", "max_tokens", "MAX_TOKENS", "model_length"] {
        let last = format!(r#"{{"choices":[{{"finish_reason":"{word}"}}]}}"#);
        assert_eq!(openai_summary(&[HI, &last]), Ok("Hi Length None".to_owned()));
    }
}

#[test]
fn a_call_that_nobody_can_make_is_not_told_as_one() {
    let called = r#"{"choices":[{"delta":{},"finish_reason":"tool_calls"}]}"#;
    assert_eq!(openai_summary(&[HI, called]), Ok("Hi Stop None".to_owned()));
    let nameless =
        r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]}}]}"#;
    assert!(openai_summary(&[nameless, called]).is_err());
}

#[test]
fn calls_that_say_nothing_lose_neither_text_nor_other_calls() {
    let stop = r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#;
    for odd in ["{}", r#""""#, "false", "null", "[]", "[null]", "[{}]", "[7,null]"] {
        let line = format!(r#"{{"message":{{"content":"Hi","tool_calls":{odd}}}}}"#);
        let said = ollama_summary(&[&line, r#"{"done":true}"#]);
        assert_eq!(said, Ok("Hi Stop None".to_owned()), "{odd}");
        let frame = format!(
            r#"{{"choices":[{{"delta":{{"content":"Hi","refusal":false,"tool_calls":{odd}}}}}]}}"#
        );
        assert_eq!(openai_summary(&[&frame, stop]), Ok("Hi Stop None".to_owned()), "{odd}");
    }
    for nameless in [r#"{"name":"","arguments":{}}"#, r#"{"name":null}"#, r#"{"name":7}"#, "{}"] {
        let named = r#"{"function":{"name":"f"}}"#;
        let line =
            |calls: &str| format!(r#"{{"message":{{"content":"Hi","tool_calls":{calls}}}}}"#);
        let said = |calls: &str| ollama_summary(&[&line(calls), r#"{"done":true}"#]);
        let nameless = format!(r#"{{"function":{nameless}}}"#);
        assert_eq!(said(&format!("[{nameless}]")), Ok("Hi Stop None".to_owned()), "{nameless}");
        let both = said(&format!("[{nameless},null,{named}]"));
        assert_eq!(both, Ok("Hi<f {}> ToolCalls None".to_owned()), "{nameless}");
        assert_eq!(said(named), Ok("Hi<f {}> ToolCalls None".to_owned()), "without a list");
    }
}

#[test]
fn a_call_in_the_older_form_is_one() {
    let frame = |call: &str| format!(r#"{{"choices":[{{"delta":{{"function_call":{call}}}}}]}}"#);
    let last = r#"{"choices":[{"delta":{},"finish_reason":"function_call"}]}"#;
    let called = Ok("<f {\"x\":1}> ToolCalls None".to_owned());
    for later in [r#"{"arguments":":1}"}"#, r#"{"name":"f","arguments":":1}"}"#] {
        let first = frame(r#"{"name":"f","arguments":"{\"x\""}"#);
        assert_eq!(openai_summary(&[&first, &frame(later), last]), called, "{later}");
    }
    let whole = frame(r#"{"name":"f","arguments":{"x":1}}"#).replace("delta", "message");
    assert_eq!(summary(read(OpenAiParser::default(), [whole.as_bytes()])), called);
    for none in ["null", "{}", "false", r#""""#, r#"{"name":"","arguments":""}"#] {
        assert_eq!(
            openai_summary(&[HI, &frame(none), last]),
            Ok("Hi Stop None".to_owned()),
            "{none}"
        );
    }
    let both = r#"{"choices":[{"delta":{"function_call":{"name":"f","arguments":"{}"},"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}]}}]}"#;
    assert_eq!(openai_summary(&[both, last]), Ok("<f {}> ToolCalls None".to_owned()));
}

#[test]
fn an_error_object_without_the_member_error_is_a_failure() {
    let error = r#"{"object":"error","message":"out of memory","code":500}"#;
    assert!(openai_summary(&[HI, error]).unwrap_err().contains("out of memory"));
}

#[test]
fn an_error_is_a_failure_whatever_it_is_called() {
    for error in [
        r#"{"errors":[{"message":"boom"}]}"#,
        r#"{"detail":"boom"}"#,
        r#"{"detail":[{"msg":"boom"}],"choices":null,"usage":null}"#,
        r#"{"code":500,"message":"boom"}"#,
        r#"{"type":"error","message":"boom"}"#,
        r#"{"error_code":336,"error_msg":"boom"}"#,
        r#"{"choices":[{"delta":{},"error":{"message":"boom"},"finish_reason":null}]}"#,
        r#"{"choices":[{"delta":{},"finish_reason":{"type":"abort"}}]}"#,
    ] {
        assert!(openai_summary(&[HI, error]).is_err(), "{error}");
    }
    let usage =
        r#"{"code":"ok","message":"fine","usage":{"prompt_tokens":7,"completion_tokens":3}}"#;
    let last = r#"{"choices":[{"delta":{},"error":{},"finish_reason":{"type":"length"}}],"code":0,"message":"ok"}"#;
    let good = r#"{"code":0,"message":"success","errors":[]}"#;
    let said = openai_summary(&[HI, good, usage, last]);
    assert_eq!(said, Ok("Hi Length Some((7, 3))".to_owned()));
}

#[test]
fn a_list_is_not_taken_for_an_object() {
    assert!(openai_summary(&[HI, r#"[null,[]]"#]).is_err());
    assert!(ollama_summary(&[r#"[{"content":"Hi"},false]"#, r#"{"done":true}"#]).is_err());
}

#[test]
fn a_byte_order_mark_is_no_part_of_an_answer() {
    let document =
        "\u{feff} {\"choices\":[{\"message\":{\"content\":\"Hi\"},\"finish_reason\":\"stop\"}]}";
    let lines = "\u{feff}{\"message\":{\"content\":\"Hi\"}}\n{\"done\":true}";
    let events =
        "\t \u{feff}\tdata: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\ndata: [DONE]\n\n";
    for size in [1, 2, 3, 1000] {
        let parsed = summary(read(OpenAiParser::default(), events.as_bytes().chunks(size)));
        assert_eq!(parsed, Ok("Hi Stop None".to_owned()));
        let parsed = summary(read(OpenAiParser::default(), document.as_bytes().chunks(size)));
        assert_eq!(parsed, Ok("Hi Stop None".to_owned()));
        let parsed = summary(read(ollama_answer(), lines.as_bytes().chunks(size)));
        assert_eq!(parsed, Ok("Hi Stop None".to_owned()));
    }
}

#[test]
fn a_whole_document_needs_no_finish_reason() {
    let document = r#"{"choices":[{"message":{"content":"Hi"},"finish_reason":null}]}"#;
    let parsed = summary(read(OpenAiParser::default(), [document.as_bytes()]));
    assert_eq!(parsed, Ok("Hi Stop None".to_owned()));
    for document in ["{}", r#"{"choices":[]}"#] {
        assert!(summary(read(OpenAiParser::default(), [document.as_bytes()])).is_err());
    }
}

#[test]
fn arguments_that_ollama_sends_as_a_text_are_not_packed_twice() {
    let call = |arguments: &str| {
        let line = format!(
            r#"{{"message":{{"tool_calls":[{{"id":5,"function":{{"name":"f"{arguments}}}}}]}}}}"#
        );
        ollama_summary(&[&line, r#"{"done":true}"#]).unwrap()
    };
    assert_eq!(call(r#","arguments":{"x":1}"#), "<f {\"x\":1}> ToolCalls None");
    assert_eq!(call(r#","arguments":"{\"x\":1}""#), "<f {\"x\":1}> ToolCalls None");
    for nothing in ["", r#","arguments":null"#, r#","arguments":"""#] {
        assert_eq!(call(nothing), "<f {}> ToolCalls None");
    }
}

proptest! {
    #[test]
    fn text_comes_through_unaltered_however_it_is_cut(
        texts in prop::collection::vec("[a-zé€😀\u{0}-\u{1f}<\"\\\\]{1,8}", 1..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let line = |text: &String| format!("{}\n", serde_json::json!({ "message": { "content": text }, "done": false }));
        let frame = |text: &String| format!("data: {}\r\n\r\n", serde_json::json!({ "choices": [{ "delta": { "content": text } }] }));
        let lines = texts.iter().map(line).collect::<String>() + "{\"done\":true}";
        let frames = texts.iter().map(frame).collect::<String>() + "data:[DONE]";
        let said: String = texts.concat();
        for (body, is_ollama) in [(lines, true), (frames, false)] {
            let bytes = body.as_bytes();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let (chunks, failed) = if is_ollama { read(ollama_answer(), pieces) } else { read(OpenAiParser::default(), pieces) };
            prop_assert_eq!(failed, None);
            let parsed: String = chunks.iter().filter_map(|chunk| match chunk {
                Chunk::Text(text) => Some(text.as_str()),
                _ => None,
            }).collect();
            prop_assert_eq!(&parsed, &said);
        }
    }

    #[test]
    fn any_bytes_end_in_an_end_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        read(ollama_answer(), bytes.chunks(7));
        read(OpenAiParser::default(), bytes.chunks(7));
    }
}

#[test]
fn a_very_long_line_is_read_whole() {
    let said = "ü".repeat(1 << 20);
    let line =
        format!("{}\n{{\"done\":true}}\n", serde_json::json!({ "message": { "content": said } }));
    let frame = format!(
        "data: {}\n\ndata: [DONE]\n\n",
        serde_json::json!({ "choices": [{ "delta": { "content": said } }] })
    );
    let pieces = |text: &str| text.as_bytes().chunks(8191).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let check = |(chunks, failed): (Vec<Chunk>, Option<String>)| {
        assert_eq!(failed, None);
        assert!(chunks.first() == Some(&Chunk::Text(said.clone())));
    };
    check(read(ollama_answer(), pieces(&line).iter().map(Vec::as_slice)));
    check(read(OpenAiParser::default(), pieces(&frame).iter().map(Vec::as_slice)));
}
