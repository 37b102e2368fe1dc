"""The report of a round, from hand-made summaries and made-up results."""

from __future__ import annotations

import copy
import datetime
import json
import re
import shlex
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from workflow.populate.summary import KeyOutcome, Summary, TableOutcome
from workflow.report import SummaryError, data, failures, figures, gallery, svd, text, timeline, write_report
from workflow.report.figures import Figure, envelope, thinned

TABLE = "svd.PopulationSVD"
HOSTILE = "</script></style></title><img src=x onerror=alert(1)>\" ' &amp; \x00\x1b[31m\ud800 $\\frac{"
VOID = {"meta", "br", "img", "hr", "link", "input"}
Key = dict[str, Any]


class Page(HTMLParser):
    """A parsed page that must be well formed, reach nowhere and run nothing."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.pieces: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in {"style"}:
            self.pieces.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.pieces).split())

    def all(self, tag: str, **having: str) -> list[dict[str, str]]:
        return [a for t, a in self.tags if t == tag and having.items() <= a.items()]


def check_page(html: str) -> Page:
    """What must be true of every report."""
    page = Page(html)
    assert html.startswith("<!DOCTYPE html>")
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "img", "link", "iframe", "object", "embed", "base", "form"}
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for name in ("src", "href", "xlink:href", "action", "data", "srcset"):
            target = attributes.get(name, "#")
            assert target.startswith(("#", "data:image/png;base64,")), (tag, name, target)
    assert not re.search(r"url\((?!#)|@import", html)
    assert not re.search(r"(?<!&quot;)https?://", html)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        assert attributes.get("aria-labelledby", ids[0]) in ids
    assert all(attributes.get("scope") in {"col", "row"} for attributes in page.all("th"))
    for attributes in page.all("svg"):
        assert attributes.get("aria-hidden") == "true" or attributes["aria-label"]
    assert len(page.all("table")) == len(page.all("caption"))
    return page


def key(number: int) -> Key:
    return {
        "subject_id": 100 + number,
        "session": 1,
        "session_epoch_type": "spont_only",
        "session_epoch_number": 1,
        "svd_params": "mesoscope",
    }


def outcome(
    number: int, name: str, reason: str = "", start: float = 0.0, seconds: float = 1.0, worker: int = 1
) -> KeyOutcome:
    began = datetime.datetime(2026, 11, 22, 18, tzinfo=datetime.UTC) + datetime.timedelta(seconds=start)
    when = began.isoformat(timespec="milliseconds")
    return KeyOutcome(TABLE, key(number), name, when, seconds, reason, worker)


def summary(verdict: str, keys: list[KeyOutcome], due: int | None = None, **changes: Any) -> dict[str, Any]:
    counts = {name: sum(k.outcome == name for k in keys) for name in ("done", "failed", "skipped")}
    due = len(keys) if due is None else due
    table = TableOutcome(TABLE, due=due, seconds=12.3, **counts)
    codes = {"succeeded": 0, "failed": 1, "refused": 2, "unreachable": 3, "stopped": 4}
    made = Summary(
        round="20261122T180000Z-abcdef0",
        commit="abcdef0123456789abcdef0123456789abcdef01",
        version="0.1.0",
        user="alice",
        machine="rig-7",
        started="2026-11-22T18:00:00.000+00:00",
        ended="2026-11-22T18:03:05.000+00:00",
        exit_code=codes[verdict],
        verdict=verdict,
        message="",
        database={"backend": "mysql", "host": "db.lab", "port": 3306, "prefix": "workflow_"},
        tables=[table],
        keys=keys,
    ).as_dict()
    return {**made, **changes}


def stand_ins(*labels: str, package: str = "workflow.pipeline") -> dict[str, Any]:
    """Tables of which only the module is looked at."""
    return {label: type("Table", (), {"__module__": f"{package}.svd"})() for label in labels}


def report(
    of: dict[str, Any], folder: Path, *, labels: Iterable[str] = (TABLE,), everything: bool = True
) -> Page:
    write_report(of, folder / "report.html", tables=stand_ins(*labels), everything=everything)
    return check_page((folder / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def _no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "connected", lambda tables: False)


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A made-up database of three decompositions; a test may change it."""
    rng = np.random.default_rng(1)
    content: dict[str, Any] = {
        "decompositions": [
            data.Decomposition(key(n), datetime.date(2023, 3, 10 - n), 40 + 10 * (n == 1), 900, 0.1, 3)
            for n in range(3)
        ],
        "asked": [],
        "area": ["MOs", "MOp"] * 25,
    }

    def courses(of: Key, count: int) -> Any:
        content["asked"].append((of, count))
        return rng.standard_normal((count, 900)) / 30

    def roi_map(of: Key, count: int) -> data.RoiMap:
        content["asked"].append((of, count))
        return data.RoiMap(
            x=np.arange(50.0) * 10,
            y=np.arange(50.0)[::-1] * 8,
            plane=["plane 1"] * 30 + ["plane 2"] * 20,
            area=content["area"],
            weights=np.linspace(-1, 1, 50 * count).reshape(50, count),
            unit="µm",
        )

    monkeypatch.setattr(data, "connected", lambda tables: True)
    monkeypatch.setattr(data, "decompositions", lambda: content["decompositions"])
    monkeypatch.setattr(
        data, "singular_values", lambda of: np.sqrt([50.0, 30.0, 10.0, 5.0, 3.0, 1.5, 0.5, 0.0])
    )
    monkeypatch.setattr(data, "time_courses", courses)
    monkeypatch.setattr(data, "roi_map", roi_map)
    return content


def test_success_says_what_ran_how_long_and_who(tmp_path: Path) -> None:
    page = report(summary("succeeded", [outcome(1, "done"), outcome(2, "done")]), tmp_path)
    assert "Everything that was due is done" in page.text
    assert "2 computations were due in one table: all of them done." in page.text
    assert "The round took 3 min 05 s, from 22 November 2026, 18:00:00 UTC." in page.text
    assert "alice ran it on the machine rig-7 with commit abcdef0 of the code (version 0.1.0)." in page.text
    assert "abcdef0123456789abcdef0123456789abcdef01" in page.text
    assert "mysql db.lab:3306" in page.text
    assert "What failed" not in page.text
    assert "What was skipped" not in page.text


def test_failures_are_grouped_by_cause_and_say_what_to_do(tmp_path: Path) -> None:
    keys = [outcome(n, "failed", "MemoryError: Unable to  allocate 3 GiB") for n in range(20)]
    keys += [
        outcome(30, "failed", "ValueError: odd"),
        outcome(31, "done"),
        outcome(32, "skipped", "too short"),
    ]
    page = report(summary("failed", keys, message="1 of 23 keys done"), tmp_path)
    assert "21 of 23 computations failed" in page.text
    assert (
        "23 computations were due in one table: 1 done, 21 failed, 1 skipped for a stated reason."
        in page.text
    )
    assert page.text.count("MemoryError: Unable to allocate 3 GiB") == 1 + page.text.count("(MemoryError")
    assert page.text.index("· 20 keys") < page.text.index("ValueError: odd")
    assert "The machine ran out of memory" in page.text
    assert f"and {20 - failures.MOST_KEYS} more: summary.json lists them all" in page.text
    assert page.text.index("What failed") < page.text.index("What was skipped, and why")
    assert "too short" in page.text
    assert "1 of 23 keys done" in page.text


def test_the_command_given_for_a_failed_key_selects_that_key() -> None:
    awkward = {"subject_id": 7, "session_epoch_type": 'it\'s "odd" $HOME'}
    words = shlex.split(failures.command(TABLE, awkward))
    assert words[:4] == ["run_workflow", "run", "--tables", TABLE]
    assert json.loads(words[words.index("--where") + 1]) == awkward


def test_many_causes_are_counted_not_all_shown(tmp_path: Path) -> None:
    keys = [outcome(n, "failed", f"ValueError: cause {n}") for n in range(failures.MOST_GROUPS + 5)]
    page = report(summary("failed", keys), tmp_path)
    assert len(page.all("article")) == failures.MOST_GROUPS
    assert "5 more causes with 5 keys in all" in page.text


def test_nothing_due(tmp_path: Path) -> None:
    page = report(summary("succeeded", []), tmp_path)
    assert "Nothing was due" in page.text
    assert "Every result that can be computed in one table is in the database already." in page.text
    assert "When it ran" not in page.text


@pytest.mark.parametrize("done", [0, 1])
def test_keys_that_wait_are_told(tmp_path: Path, done: int) -> None:
    of = summary("succeeded", [outcome(n, "done") for n in range(done)])
    of["tables"][0] |= {"held": 12, "later": 1, "waits": {"a.Event": 2}}
    page = report(of, tmp_path)
    assert "What could be done is done; some keys wait" in page.text
    assert "12 keys are reserved by other DataJoint clients" in page.text
    assert "1 key is scheduled for later." in page.text
    assert "2 keys of svd.PopulationSVD will be due when a.Event is complete." in page.text
    assert "in the database already" not in page.text


def test_summaries_of_earlier_versions_are_read(tmp_path: Path) -> None:
    of = summary("succeeded", [])
    for name in ("held", "later", "waits"):
        del of["tables"][0][name]
    assert "Nothing was due" in report(of, tmp_path).text


def test_stopped_counts_what_was_not_reached(tmp_path: Path) -> None:
    page = report(summary("stopped", [outcome(1, "done")], due=5, message="stopped by SIGTERM"), tmp_path)
    assert "Stopped before the end" in page.text
    assert "5 computations were due in one table: 1 done, 4 not reached." in page.text
    assert "stopped by SIGTERM" in page.text
    [bar] = page.all("svg", **{"aria-label": "1 done, 0 skipped, 0 failed, 4 not reached"})
    assert bar["class"] == "bar"


@pytest.mark.parametrize(
    ("verdict", "headline"),
    [("refused", "Refused: nothing was computed"), ("unreachable", "The database could not be reached")],
)
def test_without_a_database_the_rest_is_there(tmp_path: Path, verdict: str, headline: str) -> None:
    page = report(summary(verdict, [], tables=[], commit="", user="", message="check DJ_HOST"), tmp_path)
    assert headline in page.text
    assert "check DJ_HOST" in page.text
    assert (
        "Figures are drawn from the database, and this report was made without a connection to it."
        in page.text
    )
    assert "Table by table" not in page.text
    assert "An unknown person ran it on the machine rig-7 with an unrecorded commit" in page.text


def test_a_refused_round_asks_the_database_nothing(database: dict[str, Any], tmp_path: Path) -> None:
    page = report(summary("refused", [], tables=[], message="--tables nonsense"), tmp_path)
    assert "made without a connection" in page.text
    assert database["asked"] == []


def test_a_connection_lost_on_the_way(tmp_path: Path) -> None:
    page = report(summary("unreachable", [outcome(1, "done")], due=3), tmp_path)
    assert "The database was lost" in page.text
    assert "1 done, 2 not reached" in page.text


def test_times_that_are_missing_are_left_out(tmp_path: Path) -> None:
    keys = [outcome(1, "done"), outcome(2, "done")]
    keys[0].started = ""
    page = report(summary("succeeded", keys, ended=""), tmp_path)
    assert "The round took" not in page.text
    assert f"{TABLE} · 1 key" in page.text


def test_hostile_text_is_inert_wherever_it_stands(database: dict[str, Any], tmp_path: Path) -> None:
    bad = outcome(1, "failed", HOSTILE)
    bad.key = {HOSTILE: HOSTILE}
    bad.table = HOSTILE
    skipped = outcome(2, "skipped", HOSTILE)
    hostile = summary("failed", [bad, skipped], message=HOSTILE, user=HOSTILE, machine=HOSTILE, round=HOSTILE)
    hostile.update(commit=HOSTILE, version=HOSTILE, verdict=HOSTILE)
    hostile["tables"][0]["table"] = HOSTILE
    hostile["database"] = dict.fromkeys(hostile["database"], HOSTILE)
    database["area"][0] = HOSTILE
    one = database["decompositions"][0]
    one.key["session_epoch_type"] = one.key["svd_params"] = HOSTILE
    page = report(hostile, tmp_path)
    shown = "</script></style></title><img src=x onerror=alert(1)>\" ' &amp; \ufffd\ufffd[31m\ufffd $\\frac{"
    assert page.text.count(shown) > 15
    assert len(page.all("svg", **{"class": "plot"})) == 3


def bars(svg: str) -> list[dict[str, str]]:
    """Class, place, size and title of every bar of a timeline."""
    found = re.findall(r"<rect (.*?)><title>(.*?)</title></rect>", svg)
    return [dict(re.findall(r'(\w+)="(.*?)"', rest)) | {"title": title} for rest, title in found]


def test_ten_thousand_keys_stay_drawable(tmp_path: Path) -> None:
    keys = [
        outcome(n, "failed" if n == 5000 else "done", "ValueError: x" if n == 5000 else "", n * 0.018, 0.017)
        for n in range(10_000)
    ]
    page = report(summary("failed", keys), tmp_path)
    assert f"{TABLE} · 10 000 keys" in page.text
    assert "9 999 keys done" in page.text
    assert (tmp_path / "report.html").stat().st_size < 60_000
    drawn = bars((tmp_path / "report.html").read_text(encoding="utf-8"))
    [failed] = [bar for bar in drawn if bar["class"] == "failed"]
    assert float(failed["x"]) == pytest.approx(1000 * 90 / 185, abs=0.1)
    assert float(failed["width"]) >= 2


def test_bars_have_the_place_and_length_of_their_keys(tmp_path: Path) -> None:
    keys = [outcome(1, "done", "", 37.0, 18.5), outcome(2, "skipped", "too short", 111.0, 0.0)]
    page = report(summary("succeeded", keys), tmp_path)
    [done] = [a for a in page.all("rect", **{"class": "done"}) if float(a.get("x", 0)) > 0]
    assert float(done["x"]) == pytest.approx(200)
    assert float(done["width"]) == pytest.approx(100, abs=1)
    [skipped] = [a for a in page.all("rect", **{"class": "skipped"}) if a.get("x") == "600.00"]
    assert float(skipped["height"]) < float(done["height"])


def test_a_bar_says_which_key_of_which_table_which_worker_computed_and_when() -> None:
    keys = [outcome(1, "done", "", 37.0, 18.5, 2), outcome(2, "skipped", "too short", 111.0, 0.0, 12)]
    titles = [
        bar["title"].replace("\xa0", " ") for bar in bars(timeline.timeline(summary("succeeded", keys)))
    ]
    of_key = "session 1 · session_epoch_type spont_only · session_epoch_number 1 · svd_params mesoscope"
    assert titles == [
        f"{TABLE} by worker 2 of rig-7, from 37 s to 56 s after the round began: "
        f"subject_id 101 · {of_key}: done in 18 s",
        f"{TABLE} by worker 12 of rig-7, from 1 min 51 s to 1 min 51 s after the round began: "
        f"subject_id 102 · {of_key}: skipped in 0 s (too short)",
    ]


def test_every_worker_has_a_row_of_its_own_in_each_table() -> None:
    """Also where its keys and those of another one do not overlap."""
    keys = [outcome(n, "done", "", 10.0 * n, 9.0, worker) for n, worker in enumerate((2, 10, 2, 1))]
    keys.append(outcome(9, "done", "", 60.0, 9.0, 10))
    keys[-1].table = "area_svd.AreaSVD"
    svg = timeline.timeline(summary("succeeded", keys))
    assert re.findall(r">worker (\d+)<", svg) == ["1", "2", "10", "10"]
    rows: dict[str, set[tuple[str, str]]] = {}
    for bar in bars(svg):
        table, _, rest = bar["title"].partition(" by worker ")
        rows.setdefault(bar["y"], set()).add((table, rest.split()[0]))
    in_order = [rows[y] for y in sorted(rows, key=float)]
    assert in_order == [{(TABLE, "1")}, {(TABLE, "2")}, {(TABLE, "10")}, {("area_svd.AreaSVD", "10")}]


def test_hundreds_of_keys_are_each_a_bar() -> None:
    """As long as one can see them apart; shorter ones of one outcome share a bar."""
    keys = [outcome(n, "done", "", n * 0.3, 0.28, 1 + n % 2) for n in range(600)]
    assert len(bars(timeline.timeline(summary("succeeded", keys)))) == 600
    short = [outcome(n, "done", "", 0.1 * n, 0.05) for n in range(10)]
    long = [outcome(20 + n, "done", "", 1.0 + n, 0.99) for n in range(3)]
    first, *others = bars(timeline.timeline(summary("succeeded", short + long)))
    assert first["title"].endswith("10 keys done")
    assert len(others) == 3


def test_the_rows_of_many_workers_fit_a_printed_page() -> None:
    """Ten tables, each with keys of 32 workers; numbers of workers do not lie on each other."""
    keys = [outcome(n, "done", "", n * 0.5, 0.4, 1 + n % 32) for n in range(320)]
    for n, one in enumerate(keys):
        one.table = f"a.Table{n // 32}"
    svg = timeline.timeline(summary("succeeded", keys))
    [(width, height)] = re.findall(r'viewBox="-\d+ 0 (\d+) (\d+)"', svg)
    assert int(height) < 1.3 * int(width)
    places = [float(y) for y in re.findall(r'class="worker" x="-6" y="([\d.]+)"', svg)]
    assert len(places) >= 20
    assert min(np.diff(places)) >= 11


def test_keys_that_the_summary_lacks_are_counted() -> None:
    svg = timeline.timeline(summary("succeeded", [outcome(1, "done")], keys_left_out={"done": 700}))
    assert "700 more keys were left out, evenly over time" in svg


@pytest.mark.parametrize("span", [0.003, 0.8, 7, 59, 185, 700, 4000, 20000, 90000, 2e6, 3e7])
def test_ticks_are_round_and_few(span: float) -> None:
    values, labels = timeline.ticks(span)
    assert 3 <= len(values) <= 9
    assert values[0] == 0
    assert values[-1] <= span * (1 + 1e-6)
    assert len(set(labels)) == len(labels)
    assert all(re.fullmatch(r"\d+(\.\d+)? (s|min|h)", label) for label in labels)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.0004, "0.4 ms"),
        (0.21, "0.21 s"),
        (9.96, "10 s"),
        (59.7, "1 min 00 s"),
        (7625, "2 h 07 min"),
    ],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert text.duration(seconds).replace("\xa0", " ") == words


def test_skipped_keys_stand_in_one_row_per_reason(tmp_path: Path) -> None:
    reasons = [f"too few usable ROIs: {n}, needs 500" for n in (16, 9, 9)] + [
        "too short: 1 time bin(s), needs 2"
    ]
    page = report(summary("succeeded", [outcome(n, "skipped", r) for n, r in enumerate(reasons)]), tmp_path)
    assert "too few usable ROIs: 9–16, needs 500" in page.text
    assert "too short: 1 time bin(s), needs 2" in page.text
    assert len(page.all("details")) == 2
    assert page.text.count("subject_id 100 · session 1") >= 1


def test_long_messages_are_cut(tmp_path: Path) -> None:
    page = report(summary("failed", [outcome(1, "failed", "x" * 100_000)]), tmp_path)
    assert f"… ({(100_000 - text.LONGEST) // 1000} 000 more characters in summary.json)" in page.text
    assert (tmp_path / "report.html").stat().st_size < 40_000


def test_figures_of_the_epoch_with_most_rois_of_this_round(database: dict[str, Any], tmp_path: Path) -> None:
    page = report(summary("succeeded", [outcome(n, "done") for n in (1, 2)]), tmp_path)
    assert len(page.all("svg", **{"class": "plot", "role": "img"})) == 3
    assert database["asked"] == [(key(1), svd.N_COURSES), (key(1), svd.N_MAPS)]
    assert "The epoch is the one with most ROIs of those computed in this round: 50 ROIs" in page.text
    assert "component 0: 50.0 % of the variance" in page.text
    assert "x (µm)" in page.text
    assert "MOp" in page.text
    for row in ("101, 1, spont_only 1", "100, 1, spont_only 1"):
        assert row in page.text


def test_figures_of_the_latest_recording_where_nothing_was_computed(
    database: dict[str, Any], tmp_path: Path
) -> None:
    page = report(summary("succeeded", []), tmp_path)
    assert [asked for asked, _ in database["asked"]] == [key(0), key(0)]
    assert "the latest recording, since this round computed none" in page.text


def test_a_round_draws_only_the_tables_that_it_added_to(database: dict[str, Any], tmp_path: Path) -> None:
    labels = [TABLE, "svd.Other"]
    page = report(summary("succeeded", [outcome(1, "done")]), tmp_path, labels=labels, everything=False)
    assert page.all("svg", **{"class": "plot"})
    assert "svd.Other" not in page.text


@pytest.mark.parametrize("name", ["failed", "skipped"])
def test_a_round_that_added_nothing_says_how_to_draw_the_rest(
    database: dict[str, Any], tmp_path: Path, name: str
) -> None:
    page = report(summary("succeeded", [outcome(1, name, "x")]), tmp_path, everything=False)
    assert not page.all("svg", **{"class": "plot"})
    assert "This round added no result." in page.text
    assert "run_workflow report" in page.text


def test_keys_from_json_are_the_keys_of_the_database(database: dict[str, Any]) -> None:
    as_text = {name: str(value) for name, value in key(2).items()}
    list(svd.population_svd([as_text]))
    assert database["asked"][0][0] == key(2)


def test_many_decompositions_are_not_all_drawn(database: dict[str, Any]) -> None:
    [first] = database["decompositions"][:1]
    count = svd.MOST_CURVES + 30
    database["decompositions"] = [
        data.Decomposition(key(n), first.session_date, 40, 900, 0.1, 3) for n in range(count)
    ]
    spectra = next(iter(svd.population_svd([key(count - 1)])))
    assert len(spectra.rows) == svd.MOST_CURVES
    assert str(100 + count - 1) in spectra.rows[-1][0]
    assert f"of {count} in the database" in spectra.caption
    assert "other animals" in spectra.svg


def test_an_epoch_without_centroids_or_components(
    database: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nothing = data.RoiMap(np.empty(0), np.empty(0), [], [], np.empty((0, 0)), "pixels")
    monkeypatch.setattr(data, "roi_map", lambda of, count: nothing)
    monkeypatch.setattr(data, "time_courses", lambda of, count: np.empty(0))
    page = report(summary("succeeded", []), tmp_path)
    assert "The ROIs of this epoch have no centroids in the database." in page.text
    assert "No component is stored for this epoch." in page.text


def test_a_crowded_field_of_view_is_a_picture(
    database: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rng = np.random.default_rng(2)
    count = 8000
    crowd = data.RoiMap(
        *rng.uniform(0, 1000, (2, count)),
        ["plane 1"] * count,
        [""] * count,
        rng.normal(size=(count, 3)),
        "pixels",
    )
    monkeypatch.setattr(data, "roi_map", lambda of, n: crowd)
    page = report(summary("succeeded", []), tmp_path)
    assert len(page.all("image")) >= 4
    assert (tmp_path / "report.html").stat().st_size < 1_500_000


def test_an_empty_table_says_so(database: dict[str, Any], tmp_path: Path) -> None:
    database["decompositions"] = []
    assert (
        "The database holds no result of this table yet." in report(summary("succeeded", []), tmp_path).text
    )


def test_a_figure_that_fails_takes_nothing_else_with_it(
    database: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[Any] = []

    def fails(done: Any) -> Iterator[Figure]:
        yield Figure("never shown", "")
        raise RuntimeError(HOSTILE)

    def works(done: Any) -> list[Figure]:
        seen.extend(done)
        return [Figure("A later analysis", "its caption")]

    monkeypatch.setattr(gallery, "FIGURES", {"a.Fails": fails, TABLE: works})
    keys = [outcome(1, "done"), outcome(2, "failed", "x"), outcome(3, "skipped", "y")]
    page = report(summary("failed", keys), tmp_path, labels=["a.Fails", TABLE])
    assert "The figures of this table could not be drawn: RuntimeError: </script>" in page.text
    assert "A later analysis" in page.text
    assert seen == [key(1)]


def test_a_table_of_another_pipeline_is_not_taken_for_ours(
    database: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Even where its module and its class have the names of ours."""
    tables = stand_ins(TABLE, package="their_lab")
    content = data.Scalars(["session"], {"rate": "Hz"}, [{"session": 1, "rate": 2.5}], 0, 1, 0)
    monkeypatch.setattr(data, "scalars", lambda table, done: {tables[TABLE]: content}[table])
    write_report(summary("succeeded", []), tmp_path / "report.html", tables=tables, everything=True)
    page = check_page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "What is stored" in page.text
    assert "rate: Hz" in page.text
    assert database["asked"] == []


def test_same_input_same_bytes(
    database: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed = np.random.default_rng(3).standard_normal((6, 5000)) / 70
    monkeypatch.setattr(data, "time_courses", lambda of, count: fixed[:, :900])
    of = summary("failed", [outcome(1, "done"), outcome(2, "failed", "x")])
    before = copy.deepcopy(of)
    for name in ("a.html", "b.html"):
        write_report(of, tmp_path / name, tables=stand_ins(TABLE))
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert of == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "b.html"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda s: [], "the summary lacks"),
        (lambda s: {**s, "format": 99}, "format 99"),
        (lambda s: {k: v for k, v in s.items() if k != "verdict"}, "the summary lacks verdict"),
        (lambda s: {**s, "keys": [{"table": TABLE}]}, "an entry of 'keys' in the summary lacks key, outcome"),
        (lambda s: {**s, "tables": {}}, "'tables' is not a list"),
    ],
)
def test_what_is_no_summary_is_refused_and_nothing_written(
    change: Any, complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    path.write_text("earlier")
    with pytest.raises(SummaryError, match=re.escape(complaint)) as caught:
        write_report(change(summary("succeeded", [])), path, tables={})
    assert "\n" not in str(caught.value)
    assert path.read_text() == "earlier"


def test_thinned_keeps_both_ends_and_stays_small() -> None:
    assert thinned(40).tolist() == list(range(40))
    few = thinned(20_000)
    assert few[0] == 0
    assert few[-1] == 19_999
    assert len(few) <= 150
    assert (np.diff(few) > 0).all()


def test_envelope_keeps_every_peak() -> None:
    values = np.random.default_rng(4).standard_normal(20_000)
    values[[777, 12_345]] = 50, -60
    time, thin = envelope(np.arange(values.size) * 0.1, values)
    assert thin.size <= 1200
    assert (np.diff(time) > 0).all()
    assert thin.max() == 50
    assert thin.min() == -60
    assert time[thin.argmax()] == pytest.approx(77.7)
    short = np.arange(10.0)
    assert envelope(short, short)[1] is short


def test_spectra_mark_k90_on_the_cumulative_curve(
    database: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr("workflow.report.spectra.inline_svg", lambda canvas, *_: drawn.append(canvas) or "")
    list(svd.population_svd([]))
    above, below = drawn[0].axes
    curve, mark, *_ = above.lines
    assert curve.get_ydata().tolist() == pytest.approx([50, 80, 90, 95, 98, 99.5, 100, 100])
    assert curve.get_xdata().tolist() == list(range(1, 9))
    assert [*mark.get_xdata(), *mark.get_ydata()] == pytest.approx([3, 90])
    assert below.lines[0].get_ydata().tolist() == pytest.approx([50, 30, 10, 5, 3, 1.5, 0.5])
    assert (below.get_xscale(), below.get_yscale()) == ("log", "log")


@pytest.mark.parametrize(
    ("width", "labels"),
    [
        (3.6, ["5 to 95 %", "median of the subsets", "whole area"]),
        (8.4, ["MOs", "MOp"]),
        (5.6, [f"animal {number}" for number in range(463_190, 463_198)]),
    ],
)
def test_a_legend_is_on_the_canvas_and_below_the_panels(width: float, labels: list[str]) -> None:
    with figures.drawing(height=2.65, width=width) as canvas:
        margins = figures.Margins(left=0.8, bottom=0.75)
        [[axes]] = figures.panels(canvas, 1, 1, margins, sharey="none")
        for label in labels:
            axes.plot([1, 2], [1, 2], label=label)
        axes.set_xlabel("component")
        before = axes.get_position().height * canvas.get_size_inches()[1]
        figures.legend_below(canvas, *axes.get_legend_handles_labels())
        assert axes.get_position().height * canvas.get_size_inches()[1] == pytest.approx(before)
        FigureCanvasAgg(canvas).draw()
        [legend] = canvas.legends
        place = legend.get_window_extent()
        assert place.x0 >= 0
        assert place.x1 <= canvas.bbox.x1
        assert 0 <= place.y0 < place.y1 <= axes.get_tightbbox().y0
