"""The pages of runs and benchmarks in a real browser: they sort, switch, tell values, and draw; by keyboard too."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from rich.console import Console
from test_report import ARXIV, CORA, HOSTILE, runs, suite_of

from nas_gym.experiments.report.report import write_report
from nas_gym.experiments.report.run_report import write_run_report
from nas_gym.experiments.run.config import RunConfig
from nas_gym.experiments.run.run import Run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to look at pages with (Debian: chromium)"),
]
LABEL = HOSTILE.replace("=", "")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A leaderboard whose agents have known scores, one with a hostile name."""
    out = tmp_path_factory.mktemp("board")
    write_report(suite_of(LABEL, "b", "c"), runs({"random": 0.5, LABEL: 0.9, "b": 0.7, "c": 0.6}), [], out)
    return out / "report.html"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    Run(folder, RunConfig(env="NAS-Bench201-v0", agent="random", trials=40), Console(quiet=True)).execute()
    return write_run_report(folder)[0]


SHOWN = "[...document.querySelectorAll(`{}`)].filter((each) => each.checkVisibility()).length"


def shown(browser: Browser, selector: str) -> int:
    """How many elements are to be seen."""
    return int(browser.js(SHOWN.format(selector)))


def first_column(browser: Browser, table: str = "table.board") -> list[str]:
    rows = f"[...document.querySelector('{table}').tBodies[0].rows]"
    return [text.strip() for text in browser.js(f"{rows}.map((row) => row.cells[0].textContent)")]


def choose(browser: Browser, environment: str) -> None:
    browser.js(
        f"(() => {{ const choice = document.getElementById('environment'); choice.value = {environment!r};"
        "choice.dispatchEvent(new Event('change')); })()"
    )


def tip(browser: Browser, chart: str) -> str | None:
    """What a chart tells of the chosen point."""
    found = f"document.querySelector('figure[data-chart={chart}] .tip')"
    return browser.js(f"{found}.hidden ? null : {found}.innerText")


def focus(browser: Browser, selector: str) -> None:
    browser.js(f"document.querySelector({selector!r}).focus()")


@pytest.mark.parametrize(
    ("width", "dark"), [(1280, False), (390, False), (1280, True)], ids=["desktop", "phone", "dark"]
)
@pytest.mark.parametrize("page", ["board", "run"])
def test_it_is_whole(request, browser, page, width, dark) -> None:
    """No error, no request but for itself, nothing wider than the screen, all charts drawn, in the reader's scheme."""
    path = request.getfixturevalue(page)
    browser.errors.clear()
    browser.requests.clear()
    browser.open(path, width, dark=dark)
    assert browser.errors == []
    assert set(browser.requests) == {path.as_uri()}
    assert browser.js("document.documentElement.scrollWidth") <= width
    charts = "[...document.querySelectorAll('figure[data-chart]')].filter((each) => each.checkVisibility())"
    assert browser.js(f"{charts}.length") >= 3
    assert browser.js(f"{charts}.every((each) => each.querySelector('circle, .curve'))")
    light = browser.js("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert light != dark


def test_tables_sort(browser, board) -> None:
    browser.open(board)
    order = first_column(browser)
    assert order == [LABEL, "b", "c", "random"]
    focus(browser, "table.board thead th:nth-child(3) button")
    browser.press("Enter")  # by score, highest first: as it was
    assert first_column(browser) == order
    browser.press("Enter")
    assert first_column(browser) == order[::-1]
    assert browser.js("document.querySelector('table.board th:nth-child(3)').getAttribute('aria-sort')") == "ascending"
    browser.js("document.querySelector('table.board thead th button').click()")
    assert first_column(browser) == sorted(order, key=str.lower)


def test_agents_are_switched(browser, board) -> None:
    browser.open(board)
    before = shown(browser, "tr[data-agent=b]"), shown(browser, "figure .curve")
    focus(browser, "input[data-toggle=b]")
    browser.press(" ")
    assert shown(browser, "tr[data-agent=b]") == 0 < before[0]
    assert shown(browser, "figure .curve") < before[1]
    assert shown(browser, "[data-agent=c]") > 0
    browser.open(board)  # as a page that is loaded anew
    assert shown(browser, "tr[data-agent=b]") == 0
    browser.js("document.querySelector('[data-check=all]').click()")
    assert (shown(browser, "tr[data-agent=b]"), shown(browser, "figure .curve")) == before


def test_environments_are_chosen(browser, board) -> None:
    browser.open(board)
    assert shown(browser, "[data-chart=trials_validation]") == 1
    assert shown(browser, f"[data-environment='{CORA}']") == 0
    choose(browser, str(CORA))
    assert shown(browser, f"[data-environment='{CORA}']") > 3
    assert shown(browser, f"[data-environment='{ARXIV}']") == 0
    assert shown(browser, "[data-chart=trials_validation]") == 0
    choose(browser, "")


def test_values_on_hover(browser, board) -> None:
    browser.open(board)
    assert tip(browser, "score") is None
    browser.js("document.querySelector('[data-chart=score]').scrollIntoView({block: 'center'})")
    circle = "document.querySelector('[data-chart=score] circle').getBoundingClientRect()"
    browser.mouse(*(browser.js(f"{circle}.{edge}") + 3 for edge in ("left", "top")))
    assert tip(browser, "score").startswith(f"{LABEL}: 0.9 [0.8")
    browser.mouse(2, 2)
    assert tip(browser, "score") is None


def test_values_by_keyboard(browser, board) -> None:
    browser.open(board)
    focus(browser, "[data-chart=trials_validation] svg")
    browser.press("ArrowRight")
    told = tip(browser, "trials_validation").splitlines()
    assert told[0] == "trials: 1"
    assert len(told) == 5
    browser.press("ArrowRight")
    assert tip(browser, "trials_validation").splitlines()[0] == "trials: 2"
    browser.press("Escape")
    assert tip(browser, "trials_validation") is None


def test_architectures_are_drawn(browser, run) -> None:
    browser.open(run)
    chart = "[data-chart=tradeoff-parameters]"
    browser.js(f"document.querySelector('{chart}').scrollIntoView({{block: 'center'}})")
    circle = f"document.querySelector('{chart} .open').getBoundingClientRect()"
    browser.mouse(*(browser.js(f"{circle}.{edge}") + 4 for edge in ("left", "top")), click=True)
    assert browser.js("document.getElementById('drawing').open")
    assert shown(browser, "dialog svg.architecture text") >= 5
    browser.press("Escape")
    assert not browser.js("document.getElementById('drawing').open")
    focus(browser, f"{chart} svg")  # by keyboard
    for key in ("ArrowRight", "ArrowDown", "Enter"):
        browser.press(key)
    assert "Pareto front" in browser.js("document.querySelector('dialog p').textContent")
    assert browser.js("document.getElementById('drawing').open")
    browser.press("Escape")
    browser.js("document.querySelector('button[data-open]').click()")
    assert browser.js("document.querySelector('dialog p').textContent").startswith("trial ")


def test_a_search_that_goes_on_is_loaded_anew(browser, run, tmp_path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("config.yaml", "trials.db"):
        (folder / name).write_bytes((run.parent / name).read_bytes())
    page, ended = write_run_report(folder, refresh=1)
    assert not ended
    browser.open(page)
    assert "not finished" in browser.js("document.body.innerText")
    page.write_text(page.read_text().replace("not finished", "a later state"))
    for _ in range(100):
        if "a later state" in browser.js("document.body?.innerText ?? ''"):
            break
        time.sleep(0.05)
    else:
        raise AssertionError("it was not loaded anew")
    write_run_report(folder)
    assert 'http-equiv="refresh"' not in page.read_text()


def test_numbers_of_the_page_are_those_of_the_run(browser, run) -> None:
    from nas_gym.experiments.run.trials import read_trials

    browser.open(run)
    result = read_trials(run.parent)
    data = browser.js("JSON.parse(document.getElementById('data').textContent).charts.search.series")
    trials, best = data
    assert np.allclose(trials["y"], result.rewards, atol=1e-6)
    assert np.allclose(best["y"], np.maximum.accumulate(result.rewards), atol=1e-6)
