"""A model's chat template around a text: a program (Jinja) from the model's folder, which transformers runs in a sandbox."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from sparse_probing.activations.loading import brief
from sparse_probing.activations.model_text import no_chat_template
from sparse_probing.datasets.text_tokenizer import ChatFrame
from sparse_probing.errors import InputError
from sparse_probing.records import TextFormat

TODAY = datetime(2024, 7, 26)
"""The date given to templates: the default of Llama 3's. With the current date, a run could not be repeated the next day."""
CODES = ("%-d", "%-m", "%d", "%e", "%m", "%b", "%B", "%y", "%Y", "%a", "%A", "%H", "%I", "%M", "%S", "%p", "%j")
CLOCK = "strftime_now"
"""What templates call for the date."""
PLACE = "SparseProbingText0"
"""Stands for the text while what is around it is found out."""

Message = dict[str, str]


def chat_frame(tokenizer: Any, name: str, text_format: TextFormat) -> ChatFrame:
    """What the chat template of a tokenizer puts around a text.

    Args:
        tokenizer: of transformers.
        name: of the model.
        text_format: the system message, and who says the text.

    Raises:
        InputError: no template; one that knows no such message, leaves the text or the system message out, or repeats the text.
    """
    if not tokenizer.chat_template:
        raise no_chat_template(name)
    role = text_format.role or "user"
    template = f"{_stopped_clock()}{written}" if CLOCK in (written := tokenizer.get_chat_template()) else None

    def rendered(messages: Sequence[Message], *, answer: bool = False) -> str:
        return tokenizer.apply_chat_template(
            list(messages), chat_template=template, tokenize=False, add_generation_prompt=answer
        )

    trouble: Exception | None = None
    for around in _before(text_format):
        try:
            whole = rendered([*around, {"role": role, "content": PLACE}])
        except Exception as error:
            trouble = error
            continue
        break
    else:
        said = "" if trouble is None else f" ({brief(trouble)})"
        system = "" if text_format.system is None else " after a system message"
        raise InputError(f"the chat template of {name!r} does not take a message of the {role}{system}{said}.")
    if (times := whole.count(PLACE)) != 1:
        raise InputError(
            f"the chat template of {name!r} writes the text of the {role} {times} times, so its tokens cannot be told: use "
            "another --role, or leave out --chat-template."
        )
    before, after = whole.split(PLACE)
    if text_format.system is not None and text_format.system.strip() not in before + after:
        raise InputError(f"the chat template of {name!r} leaves the system message out: leave out --system.")
    answered = ""
    if role == "user":
        asking = rendered([*around, {"role": role, "content": PLACE}], answer=True)
        answered = asking.partition(PLACE)[2]
    return ChatFrame(
        before=before,
        after=after,
        answer=answered,
        render=lambda text: rendered([*around, {"role": role, "content": text}]),
    )


def _stopped_clock() -> str:
    """Jinja that takes the place of the function for the date, which transformers does not let us give."""
    dated = "".join(f"|replace('{code}', '{TODAY.strftime(code)}')" for code in CODES)
    return f"{{% macro {CLOCK}(format) %}}{{{{ format{dated} }}}}{{% endmacro %}}{{{{ '' }}}}"


def _before(text_format: TextFormat) -> Iterator[list[Message]]:
    """Messages in front of the text: first without any that was not asked for; some templates want the user to begin."""
    system = [] if text_format.system is None else [{"role": "system", "content": text_format.system}]
    yield system
    if text_format.role == "assistant":
        yield [*system, {"role": "user", "content": ""}]
