"""`sprobe steer`."""

from __future__ import annotations

from math import exp
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from sparse_probing.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

SEVERAL = Parameter(consume_multiple=True, negative_iterable=())
FLAG = Parameter(negative=())


def steer(
    run: Path,
    *,
    prompt: Annotated[tuple[str, ...], SEVERAL],
    feature: str | None = None,
    neuron: Annotated[tuple[str, ...], SEVERAL] = (),
    clamp: str | None = None,
    zero: Annotated[bool, FLAG] = False,
    continuation: Annotated[tuple[str, ...], SEVERAL] = (),
    tokens: int = 40,
    seeds: int = 3,
    temperature: float = 0.8,
    where: Literal["all", "generated"] = "all",
    out: Path | None = None,
    device: str | None = None,
    trust_remote_code: Annotated[bool, FLAG] = False,
) -> None:
    """Let the model of a run write with some of its neurons held at a value, beside what it writes without.

    Args:
        run: Folder of a finished run.
        prompt: Text(s) to write on.
        feature: Feature of the run (CATEGORY/FEATURE where the name is in several). Its best neuron is changed unless --neuron
            names others, and its probe reads back what was written.
        neuron: Neuron(s) to change: L3.N609 is neuron 609 of layer 3, L3.resid.post.17 a unit of another site.
        clamp: What they are held at: a value (8), a multiple of their mean in class (2x), or a quantile in class (q0.99).
        zero: Hold them at 0.
        continuation: Text(s) whose probability after the prompt is compared, with their leading blank.
        tokens: New tokens per text, at most.
        seeds: Texts per prompt. Same seed, same text.
        temperature: Of the draws; 0 takes the most probable token.
        where: all: neurons are held at every position, those of the prompt too. generated: from the prompt's last token on.
        out: JSON file for all of it.
        device: Torch device, instead of the run's.
        trust_remote_code: Run program code that comes with the model, where it needs some.
    """
    if (clamp is None) == (not zero):
        raise InputError("say what the neurons are held at: either --clamp (a value such as 8, 2x or q0.99) or --zero.")
    from sparse_probing.cli.progress import Bars
    from sparse_probing.cli.terminal import Terminal, warn_of_model_code
    from sparse_probing.files import write_json
    from sparse_probing.open_run import open_model
    from sparse_probing.results.run_folder import read_run, readable
    from sparse_probing.studies.effects.doses import parse_dose
    from sparse_probing.studies.steering.steering import changes_of, find_reader, pick_feature, pooling_of
    from sparse_probing.studies.steering.steering import steer as write_texts

    warn_of_model_code(trusted=trust_remote_code)
    level = parse_dose("0" if clamp is None else clamp)
    manifest, tables = read_run(run)
    finding = pick_feature(tables["findings"], feature, neuron)
    _, model = open_model(run, with_head=True, device=device, trust_remote_code=trust_remote_code)
    site = manifest["model"]["site"]
    with readable(run):
        changes = changes_of(model, tables, site, finding, neuron, level)
        reader = None
        if finding is not None:
            reader = find_reader(model, tables, site, finding, pooling_of(run, finding), changes)
    result = write_texts(
        model, changes, prompt, continuation,
        tokens=tokens, seeds=seeds, temperature=temperature, where=where, reader=reader, reporter=Bars(),
    )  # fmt: skip
    about = None if finding is None else {"category": finding["category"], "feature": finding["feature"]}
    result = {
        "run": str(run),
        "model": model.name,
        "feature": about,
        "options": {"tokens": tokens, "temperature": temperature, "where": where},
    } | result
    console = Terminal()
    print_steering(console, result)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, result)
        console.print(f"written: {out}", soft_wrap=True)


def print_steering(console: Console, result: dict[str, Any]) -> None:
    """What was changed, the texts side by side, the continuations, and what the unchanged model says about the texts.

    Args:
        console: where to.
        result: from `studies.steering.steering.steer`, with `feature` and `options`.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from sparse_probing.pages.visible import isolated, visible

    def shown(text: str) -> Text:
        return Text(isolated(visible(text)), overflow="fold")  # never markup: it comes from the model

    def say(text: str) -> None:
        console.print(text)

    name = result["feature"] and result["feature"]["feature"]
    for change in result["changed"]:
        say(_change_words(change, name, result["options"]["where"]))
    for prompt in dict.fromkeys(row["prompt"] for row in result["texts"]):
        table = Table(
            title=shown(f"{prompt} …"), title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False
        )
        table.add_column("seed", justify="right")
        table.add_column("before", ratio=1)
        table.add_column("after", ratio=1)
        for row in result["texts"]:
            if row["prompt"] == prompt:
                table.add_row(str(row["seed"]), shown(row["before"]), shown(row["after"]))
        console.print(table)
    if result["continuations"]:
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("continuation of the prompt")
        for column in ("tokens", "log prob before", "after", "change (nats)", "times as probable"):
            table.add_column(column, justify="right", no_wrap=True)
        for row in result["continuations"]:
            before, after = row["log_prob_before"], row["log_prob_after"]
            text = Text.assemble(shown(row["prompt"]), (visible(row["continuation"]), "bold"), overflow="fold")
            times = exp(min(after - before, 99))
            table.add_row(
                text, str(row["tokens"]), f"{before:.2f}", f"{after:.2f}", f"{after - before:+.2f}",
                f"{times:,.0f}" if times >= 100 else f"{times:.3g}",
            )  # fmt: skip
        console.print(table)
    for line in _summary(result, name):
        say(line)


def _change_words(change: dict[str, Any], feature: str | None, where: str) -> str:
    usual = ""
    if change["mean_in_class"] is not None:
        usual = (
            f"; usually {change['mean_in_class']:.3g} in class {feature} and {change['mean_out_of_class']:.3g} out of it "
            "(means of the training rows)"
        )
        if change["mean_in_class"] < change["mean_out_of_class"]:
            usual += "; it is lower in class, so a larger value leads away from the class"
    places = "every position" if where == "all" else "every position from the prompt's last token on"
    return f"{change['unit']} held at {change['value']:.4g} at {places}{usual}."


def _summary(result: dict[str, Any], feature: str | None) -> list[str]:
    texts = result["texts"]
    seeds = "1 text" if len(texts) == 1 else f"{len(texts)} texts"
    changed = sum(row["changed_share"] for row in texts) / len(texts)
    same = sum(row["changed_share"] == 0 for row in texts)
    unmoved = "1 text" if same == 1 else f"{same} texts"
    lines = [f"{seeds}: {changed:.0%} of the tokens changed, {unmoved} not at all."]
    if same == len(texts) and not result["continuations"]:
        lines.append("--continuation sees effects that are too small to change a text.")
    both = [row for row in texts if row["log_prob_before"] is not None and row["log_prob_after"] is not None]
    if both:
        before, after = (sum(row[f"log_prob_{side}"] for row in both) / len(both) for side in ("before", "after"))
        lines.append(
            f"The unchanged model gives the new tokens a mean log probability of {before:.2f} nats before, {after:.2f} after: the "
            "lower, the odder it finds them."
        )
    reader = result["reader"]
    if reader and reader["rows_before"] and reader["rows_after"]:
        rows = "new tokens" if reader["pooling"] == "token" else "texts"
        before, after = (
            f"{round(reader[f'called_share_{side}'] * reader[f'rows_{side}'])} of {reader[f'rows_{side}']} {rows}"
            for side in ("before", "after")
        )
        lines.append(
            f"Read back by the unchanged model: its neuron {reader['unit']}, of a layer that was not touched, says {feature} to "
            f"{before} before and {after} after."
        )
    return lines
