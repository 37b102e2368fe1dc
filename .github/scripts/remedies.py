"""What to do about a failure, by the code with which run_workflow ended and by the words of messages."""

from __future__ import annotations

import re

#: By the exit code of run_workflow.
BY_CODE = {
    2: "Correct tables or restriction as the message says, and press the button again. Nothing was computed.",
    3: "The database did not answer or did not let us in. Try again later; if it stays so, tell whoever runs "
    "it, and check the secrets DJ_HOST, DJ_USER and DJ_PASS.",
    4: "It was stopped before its end. Nothing is lost: press the button again, and it goes on from there.",
}

#: By words of the reason why a key failed.
OF_A_KEY = (
    (
        r"SIGKILL|out of memory|MemoryError|Unable to allocate",
        "It needs more memory than the machine has: press the button again with a larger worker.",
    ),
    (
        r"database (was lost|was busy|did not answer|server)|LostConnection",
        "The database was away or busy for a while: press the button again; what is done stays done.",
    ),
)
OF_ANY_KEY = (
    "Correct the data or the code that the messages name, then press the button again: only what failed "
    "is computed again."
)

#: By words of the message of a round, or of another playbook.
OF_A_MESSAGE = (
    (r"is (running|pending): ", "Somebody uses this worker. status shows who, force_stop stops it."),
    (r"is stopping: ", "It is about to be off. Press the button again in a minute."),
    (
        r"credentials have expired",
        "The sign-in at AWS ended too early. What is done stays done: press the button again. If it happens "
        "again, tell whoever looks after the secrets here (AWS_ROLE_SECONDS).",
    ),
    (r"credentials|AuthFailure", "AWS did not let us in: tell whoever looks after the secrets here."),
    (r"no capacity", "AWS has no such machine to spare now. Try again later, or on another worker."),
    (
        r"cannot be reached|was lost|host key|Permission denied|did not answer",
        "Try once more; if it stays so, tell whoever looks after the workers.",
    ),
)
OTHERWISE = "If the message does not help, show this page to whoever looks after the workers."


def of_message(text: str) -> str:
    """Find what to do about a message."""
    return _first(OF_A_MESSAGE, text, OTHERWISE)


def of_key(reason: str) -> str:
    """Find what to do about the reason why a key failed."""
    return _first(OF_A_KEY, reason, OF_ANY_KEY)


def _first(known: tuple[tuple[str, str], ...], text: str, otherwise: str) -> str:
    return next((remedy for pattern, remedy in known if re.search(pattern, text)), otherwise)
