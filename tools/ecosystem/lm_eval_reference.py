#!/usr/bin/env python3
"""Compares awq eval --task with lm-eval and transformers, item by item, on the same model in float32.

usage: lm_eval_reference.py --awq AWQ --model FOLDER [--data FOLDER] [--tasks a,b] [--limit N] [--shots N] [--work FOLDER] [--out FILE.json] [--markdown FILE.md]

Runs in the environment of requirements-lmeval.txt. FOLDER of --model is a float model in safetensors. Every task is lm-eval's own
definition; only where its documents come from is changed, to JSON lines made of the files that awq reads. --data has
hellaswag_val_full.txt, piqa_validation.jsonl, winogrande_xl_validation.jsonl, arc_easy_test.jsonl, arc_challenge_test.jsonl and
lambada_openai.jsonl; boolq, openbookqa, mmlu and truthfulqa then have ARC's items behind a few made here, in the authors' format for awq and in the
Hugging Face hub's for lm-eval, and gsm8k has 500 sums in words, which are drawn here. Without it, those few are used. "mmlu_group" is a folder of two subjects, held against what lm-eval's own aggregation makes of its subjects; "piqa_labels" is
PIQA with its labels in a file of their own.

What is made stays in --work, a folder for one model: what awq or lm-eval has scored there is not scored again. Fails where an item's log-likelihood differs by more than 1e-3 of itself, an answer by a character, or a metric or its error by
more than one item explains.
"""
import argparse
import csv
import json
import pathlib
import random
import subprocess
import sys
import tempfile

from lm_eval import evaluator, tasks
from lm_eval.api.metrics import aggregate_subtask_metrics, pooled_sample_stderr
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks._yaml_loader import load_yaml

TOLERANCE = 1e-3
DEFINITIONS = pathlib.Path(tasks.__file__).parent


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def write_lines(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


# ----------------------------------------------------------------------------------------------------------------------------------
# Documents: what awq reads, and the same as lm-eval's definitions want it.

def hellaswag(path):
    text = path.read_text(encoding="utf-8").split("\n")
    return [{"query": text[i], "label": int(text[i + 1]), "choices": text[i + 2:i + 6]} for i in range(0, len(text) - 5, 6)]


def arc(path):
    docs = []
    for row in lines(path):
        question = row["query"].removeprefix("Question: ").removesuffix("\nAnswer:")
        labels = [chr(ord("A") + i) for i in range(len(row["choices"]))]
        docs.append({"question": question, "choices": {"text": row["choices"], "label": labels}, "answerKey": labels[row["gold"]]})
    return docs


def lambada(path):
    return [{"text": row["context"] + " " + row["continuation"]} for row in lines(path)]


REAL = {  # task: file, documents, definition, changes to it
    # The text form has been through the definition's process_docs already.
    "hellaswag": ("hellaswag_val_full.txt", hellaswag, "hellaswag/hellaswag.yaml", {"process_docs": None}),
    "piqa": ("piqa_validation.jsonl", lines, "piqa/piqa.yaml", {}),
    "winogrande": ("winogrande_xl_validation.jsonl", lines, "winogrande/default.yaml", {}),
    "arc_easy": ("arc_easy_test.jsonl", arc, "arc/arc_easy.yaml", {}),
    "arc_challenge": ("arc_challenge_test.jsonl", arc, "arc/arc_challenge.yaml", {}),
    "lambada_openai": ("lambada_openai.jsonl", lambada, "lambada/lambada_openai.yaml", {}),
}

# Made here. Each: a file name, the authors' format, the hub's, a definition.
BOOLQ = [("The bridge was built in 1901 from oak and rebuilt in steel after the flood of 1934.", "is the bridge made of oak today", False),
         ("Tea leaves are picked by hand on the upper slopes, and by machine below.", "is tea on the upper slopes picked by hand", True),
         ("The museum is closed on Mondays and on public holidays.", "can you visit the museum on mondays", False),
         ("A kestrel hovers against the wind to look for voles.", "does a kestrel hunt voles", True)]
OPENBOOK = [("A plant on a dark shelf grows towards", ["the wall", "the window", "the floor", "its pot"], 1),
            ("Ice that is left in a warm room will", ["melt", "burn", "rust", "grow"], 0),
            ("To see a planet's rings you would use", ["a microscope", "a stethoscope", "a thermometer", "a telescope"], 3),
            ("A magnet attracts", ["a wooden spoon", "a paper cup", "an iron nail", "a glass bead"], 2)]
MMLU = [("How many sides has a hexagon?", ["Four", "Five", "Six", "Eight"], 2), ("Which is a prime number?", ["9", "15", "21", "23"], 3),
        ("What is 7, \"seven\", times 8?", ["56", "54", "48", "63"], 0), ("Which line, of these, is the longest in a circle?\n", ["A chord", "A radius", "The diameter", "None, all are equal"], 2),
        ("What is 10% of 250?", ["2.5", "25", "250", "20"], 1), ("Which fraction is the largest?", ["1/2", "1/3", "2/3", "1/4"], 2)]
BIOLOGY = [("Which part of a cell holds its genes?", ["The wall", "The nucleus", "The membrane", "The cytoplasm"], 1),
           ("What do plants take from the air to grow?", ["Nitrogen", "Helium", "Oxygen", "Carbon dioxide"], 3),
           ("Which animal is a mammal?", ["A bat", "A robin", "A trout", "A frog"], 0)]
PIQA = [("keep bread fresh", "wrap it in a cloth", "wrap it in wet leaves", 0), ("sharpen a knife", "draw it over butter", "draw it over a whetstone", 1),
        ("dry wet shoes", "stuff them with newspaper", "stuff them with snow", 0)]
TRUTHFUL = [("What happens if you read in dim light?", {"Your eyes get tired": 1, "You go blind": 0, "Your eyes are damaged for good": 0},
             {"Your eyes get tired": 1, "Nothing lasting happens": 1, "You go blind": 0, "Your eyes are damaged for good": 0}),
            ("Do goldfish forget everything within seconds?", {"No, they remember for months": 1, "Yes, within three seconds": 0},
             {"No, they remember for months": 1, "No": 1, "Yes, within three seconds": 0})]
GSM8K = [("Ann has 3 boxes of 12 pencils and gives away 10. How many are left?", "3 boxes are 3 * 12 = 36 pencils.\n36 - 10 = 26 are left.\n#### 26"),
         ("A train goes 60 miles in an hour. How far does it go in 4 hours?", "It goes 60 * 4 = 240 miles.\n#### 240"),
         ("Tom reads 15 pages a day. How many days do 120 pages take?", "120 / 15 = 8 days.\n#### 8"),
         ("A shirt costs $25 and shoes cost $1,200. What do both cost?", "Both cost 25 + 1200 = $1,225.\n#### 1,225"),
         ("There are 5 rows of 9 chairs. 7 are broken. How many are whole?", "5 * 9 = 45 chairs.\n45 - 7 = 38 are whole.\n#### 38"),
         ("Eve saves $4 a week. How much has she after 9 weeks?", "She has 4 * 9 = $36.\n#### 36"),
         ("A cake is cut into 16 pieces and 5 are eaten. How many remain?", "16 - 5 = 11 pieces remain.\n#### 11")]


def add_sums(count=500):
    """Questions and answers as GSM8K writes them, each of one of five kinds, with numbers, names and things that are drawn."""
    draw = random.Random(8)
    kinds = [
        (lambda n, t, a, b, c: f"{n} has {a} boxes of {b} {t} and gives away {c}. How many {t} are left?",
         lambda n, t, a, b, c: f"{a} boxes are {a} * {b} = <<{a}*{b}={a * b}>>{a * b} {t}.\n{a * b} - {c} = {a * b - c} are left.\n#### {a * b - c:,}"),
        (lambda n, t, a, b, c: f"A shop sells {t} at ${b} each. {n} buys {a} and pays ${c} for the way home. How much does {n} spend?",
         lambda n, t, a, b, c: f"The {t} cost {a} * {b} = ${a * b}.\nWith the way home {n} spends {a * b} + {c} = ${a * b + c}.\n#### {a * b + c:,}"),
        (lambda n, t, a, b, c: f"{n} makes {b} {t} a day for {a} days and {n}'s sister makes {c} in all. How many {t} do they make together?",
         lambda n, t, a, b, c: f"{n} makes {a} * {b} = {a * b}.\nTogether they make {a * b} + {c} = {a * b + c}.\n#### {a * b + c:,}"),
        (lambda n, t, a, b, c: f"{n} puts {a * b} {t} evenly into {a} bags, then {c} more into the first bag. How many {t} are in the first bag?",
         lambda n, t, a, b, c: f"Each bag has {a * b} / {a} = {b}.\nThe first has {b} + {c} = {b + c}.\n#### {b + c:,}"),
        (lambda n, t, a, b, c: f"{n} had {a * b + c} {t}, lost {c}, and shares the others among {a} friends. How many does each get?",
         lambda n, t, a, b, c: f"{a * b + c} - {c} = {a * b} are left.\nEach gets {a * b} / {a} = {b}.\n#### {b:,}"),
    ]
    for _ in range(count):
        question, answer = draw.choice(kinds)
        name, thing = draw.choice(["Mira", "Olek", "Jun", "Sana", "Pia", "Tomas"]), draw.choice(["pencils", "apples", "stamps", "lamps", "shells", "cups"])
        values = name, thing, draw.randint(3, 40), draw.randint(5, 60), draw.randint(1, 14)
        GSM8K.append((question(*values), answer(*values)))


def write_csv(path, items=MMLU):
    with path.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([q, *choices, "ABCD"[gold]] for q, choices, gold in items)
    return path


def write_piqa(path):
    path.with_name(path.stem + "-labels.lst").write_text("".join(f"{gold}\n" for *_, gold in PIQA))
    return write_lines(path, [{"goal": g, "sol1": a, "sol2": b} for g, a, b, _ in PIQA])


def subject_docs(items, subject):
    return [{"question": q, "choices": c, "answer": g, "subject": subject} for q, c, g in items]


def lettered(stem, texts):
    return {"stem": stem, "choices": [{"text": t, "label": "ABCD"[i]} for i, t in enumerate(texts)]}


def listed(targets):
    return {"choices": list(targets), "labels": list(targets.values())}


def truthful(kind):
    authors = [{"question": q, "mc1_targets": one, "mc2_targets": many} for q, one, many in TRUTHFUL]
    docs = [{"question": q, "mc1_targets": listed(one), "mc2_targets": listed(many)} for q, one, many in TRUTHFUL]
    return ("mc_task.json", lambda p: p.write_text(json.dumps(authors, indent=1)), docs, f"truthfulqa/truthfulqa_{kind}.yaml")


def add_arc(data):
    """Four choices of ARC's real items in the formats of tasks whose own files are not in `data`."""
    for item in arc(data / "arc_easy_test.jsonl") + arc(data / "arc_challenge_test.jsonl"):
        question, texts, gold = item["question"], item["choices"]["text"], ord(item["answerKey"]) - ord("A")
        if len(set(texts)) != 4:
            continue
        MMLU.append((question, texts, gold)), OPENBOOK.append((question, texts, gold))
        guess = len(question) % 4
        BOOLQ.append((f"{question} {texts[gold]}.", f"is the answer {texts[guess]}", guess == gold))
        rated = {text: int(i == gold) for i, text in sorted(enumerate(texts), key=lambda one: one[0] != gold)}  # mc1 has the true one first
        TRUTHFUL.append((question, rated, rated))


def own_tasks():
    return {
        "boolq": ("val.jsonl", lambda p: write_lines(p, [{"question": q, "title": "", "answer": a, "passage": t} for t, q, a in BOOLQ]),
                  [{"passage": t, "question": q, "label": int(a)} for t, q, a in BOOLQ], "super_glue/boolq/default.yaml"),
        "openbookqa": ("test.jsonl", lambda p: write_lines(p, [{"id": str(i), "question": lettered(q, c), "answerKey": "ABCD"[g]} for i, (q, c, g) in enumerate(OPENBOOK)]),
                       [{"question_stem": q, "choices": {"text": c, "label": list("ABCD")}, "answerKey": "ABCD"[g]} for q, c, g in OPENBOOK], "openbookqa/openbookqa.yaml"),
        "mmlu": ("elementary_mathematics_test.csv", write_csv, subject_docs(MMLU, "elementary_mathematics"), "mmlu/default/mmlu_elementary_mathematics.yaml"),
        "piqa_labels": ("valid.jsonl", write_piqa, [{"goal": g, "sol1": a, "sol2": b, "label": gold} for g, a, b, gold in PIQA], "piqa/piqa.yaml"),
        "truthfulqa_mc1": truthful("mc1"),
        "truthfulqa_mc2": truthful("mc2"),
        "gsm8k": ("test.jsonl", lambda p: write_lines(p, [{"question": q, "answer": a} for q, a in GSM8K]),
                  [{"question": q, "answer": a} for q, a in GSM8K], "gsm8k/gsm8k.yaml"),
    }


def documents(name, data, work):
    """The file that awq reads, lm-eval's documents, its definition and what is changed in it."""
    if name in REAL:
        file, docs, definition, changes = REAL[name]
        return data / file, docs(data / file), definition, changes
    file, write, docs, definition = own_tasks()[name]
    path = work / f"{name}-{file}" if name != "mmlu" else work / file
    write(path)
    return path, docs, definition, {}


# ----------------------------------------------------------------------------------------------------------------------------------

def theirs(lm, name, docs, definition, changes, args, work):
    config = load_yaml(DEFINITIONS / definition) | changes
    file = write_lines(work / f"{name}.docs.jsonl", docs)
    config |= {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": {"test": str(file)}}, "task": name,
               "training_split": None, "validation_split": None, "test_split": "test", "fewshot_split": "test"}
    for key in ("tag", "group", "task_alias"):
        config.pop(key, None)
    task = ConfigurableTask(config=config)
    # What is asked twice is computed once: truthfulqa's two tasks have the same questions here.
    return evaluator.simple_evaluate(lm, tasks=[task], num_fewshot=args.shots, limit=args.limit or None, bootstrap_iters=1000, use_cache=str(work / "asked"))


def ours(name, path, args, work):
    samples = work / f"{name}.samples.jsonl"
    command = [args.awq, "eval", args.model, "--task", f"{name.removesuffix('_labels').removesuffix('_group')}={path}", "--save-samples", samples, "--json", "--limit", args.limit]
    if samples.exists():
        command.append("--resume")
    if args.shots is not None:
        command += ["--shots", args.shots]
    report = json.loads(subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True).stdout)[0]
    return report, {r["item"]: r for r in lines(samples) if "item" in r}


def likelihood_difference(samples, items):
    worst, flips = 0.0, 0
    for s in samples:
        mine = items[s["doc_id"]]
        scores = [r[0] for r in s["resps"]]
        for (ll, greedy), my_ll, my_greedy in zip(scores, mine["log_likelihoods"], mine["greedy"], strict=True):
            worst = max(worst, abs(float(ll) - my_ll) / max(1.0, abs(float(ll))))
            flips += bool(greedy) != my_greedy
    return worst, flips


METRICS = {"acc": "acc,none", "acc_norm": "acc_norm,none", "perplexity": "perplexity,none", "strict": "exact_match,strict-match",
           "flexible": "exact_match,flexible-extract"}


def compare(lm, name, args, work):
    path, docs, definition, changes = documents(name, args.data, work)
    report, items = ours(name, path, args, work)
    reference = theirs(lm, name, docs, definition, changes, args, work)
    results, samples = reference["results"][name], reference["samples"][name]
    row = {"task": name, "items": report["items"], "shots": report["shots"]}
    n, bad = report["items"], []
    if name == "gsm8k":
        other = [s["doc_id"] for s in samples if s["resps"][0][0] != items[s["doc_id"]]["answer"]]
        row["different_answers"] = len(set(other))
        bad += [f"{len(set(other))} answers differ"] if other else []
    else:
        row["log_likelihood_difference"], row["greedy_flips"] = likelihood_difference(samples, items)
        if row["log_likelihood_difference"] > TOLERANCE:
            bad.append(f"a log-likelihood differs by {row['log_likelihood_difference']:.2e}")
    for metric, mine in report["metrics"].items():
        their = float(results[METRICS[metric]])
        error = results.get(METRICS[metric].replace(",", "_stderr,"))
        row[metric] = {"awq": mine["value"], "lm_eval": their, "awq_error": mine["standard_error"], "lm_eval_error": error}
        slack = 1e-3 * their if metric == "perplexity" else 1 / n + 1e-9
        if abs(mine["value"] - their) > slack:
            bad.append(f"{metric}: {mine['value']} here, {their} there")
        # lm-eval draws perplexity's error by bootstrap, which is skewed where items are few.
        if isinstance(error, float) and metric == "perplexity":
            far = n >= 400 and abs(mine["standard_error"] - error) > 0.2 * error
        else:
            far = isinstance(error, float) and abs(mine["standard_error"] - error) > 1e-6 + 1 / n * error
        if far:
            bad.append(f"{metric}: error {mine['standard_error']} here, {error} there")
    return row, bad


def compare_group(lm, args, work):
    folder = work / "subjects"
    folder.mkdir(exist_ok=True)
    subjects = {"elementary_mathematics": MMLU[:6], "college_biology": BIOLOGY}
    accuracies, errors, sizes = [], [], []
    for subject, items in sorted(subjects.items()):
        write_csv(folder / f"{subject}_test.csv", items)
        result = theirs(lm, f"mmlu_{subject}", subject_docs(items, subject), f"mmlu/default/mmlu_{subject}.yaml", {}, args, work)["results"][f"mmlu_{subject}"]
        accuracies.append(result["acc,none"]), errors.append(result["acc_stderr,none"])
        sizes.append(min(len(items), args.limit or len(items)))
    mine = ours("mmlu_group", folder, args, work)[0]["metrics"]["acc"]
    acc, error = aggregate_subtask_metrics(accuracies, sizes), float(pooled_sample_stderr(errors, sizes))
    row = {"task": "mmlu_group", "items": sum(sizes), "shots": args.shots or 0, "acc": {"awq": mine["value"], "lm_eval": acc, "awq_error": mine["standard_error"], "lm_eval_error": error}}
    bad = [f"{what}: {a} here, {b} there" for what, a, b in (("acc", mine["value"], acc), ("error", mine["standard_error"], error)) if abs(a - b) > 1e-6]
    return row, bad


def markdown(rows):
    lines = ["| task | items | acc, awq | acc, lm-eval | acc_norm, awq | acc_norm, lm-eval | largest difference of a log-likelihood |", "|" + "---|" * 7]
    for r in rows:
        cells = [f"`{r['task']}`", str(r["items"])]
        for metric in ("acc", "acc_norm"):
            m = r.get(metric)
            cells += [f"{100 * m[w]:.2f} ± {100 * m[w + '_error']:.2f} %" for w in ("awq", "lm_eval")] if m else ["", ""]
        lines.append("| " + " | ".join([*cells, f"{r['log_likelihood_difference']:.1e}" if "log_likelihood_difference" in r else ""]) + " |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--awq", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--tasks", default="")
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--shots", type=int)
    parser.add_argument("--work", type=pathlib.Path)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--markdown", type=pathlib.Path)
    args = parser.parse_args()
    if args.data:
        add_arc(args.data)
        add_sums()
    names = args.tasks.split(",") if args.tasks else [*(REAL if args.data else []), *own_tasks(), "mmlu_group"]
    lm = HFLM(pretrained=args.model, dtype="float32", device="cpu", batch_size=args.batch)
    rows, failed = [], False
    with tempfile.TemporaryDirectory(prefix="awq-lm-eval-") as folder:
        work = args.work or pathlib.Path(folder)
        work.mkdir(exist_ok=True)
        for name in names:
            row, bad = compare_group(lm, args, work) if name == "mmlu_group" else compare(lm, name, args, work)
            rows.append(row)
            print(json.dumps(row), *[f"\n  {name}: {b}" for b in bad], flush=True)
            failed = failed or bool(bad)
            if args.out:
                args.out.write_text(json.dumps(rows, indent=1) + "\n")
            if args.markdown:
                args.markdown.write_text(markdown(rows))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
