"""The study: what it simulates, keeps and shows, at a small scale."""

import json
from dataclasses import replace

import pytest

from loadgen.simulate.task import Search, Task
from loadgen.simulate.workers import run_steps
from loadgen.study import __main__ as program
from loadgen.study.cases import FIRST, OWN, WORKLOADS, Fleet, Workload, fleets, is_own
from loadgen.study.figures import Figures
from loadgen.study.pictures import draw_all
from loadgen.study.steps import Case, Study
from loadgen.study.store import Store, Trust, inputs_of, sources_digest
from loadgen.study.tables import all_tables

BASELINES = ("random", "least_requests", "least_kv")


def small_study(**more):
    first = fleets()[0]
    fleet = Fleet("two", "two replicas", first.replicas[:2])
    workload = Workload("bimodal", "bimodal:rate=4,n=100")
    settings = {"baselines": BASELINES, "seeds": 2, "tolerance": 0.3} | more
    return Study(cases=[Case(workload, fleet)], **settings)


def run(study, folder, trust=None, sources="a"):
    store = Store(folder, trust or Trust(), sources)
    done = []

    def keep(key, finished):
        if finished is not None:
            done.append(key)
            store.keep(key, finished)

    return run_steps(study.steps(store), 1, keep), store, done


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    study = small_study()
    return study, *run(study, folder), folder


def test_what_is_known_is_not_simulated_again(studied):
    study, results, store, done, folder = studied
    assert store.reused == 0
    assert set(done) == set(results)
    again, second, _ = run(study, folder)
    assert again == results
    assert second.reused == len(results)


def test_when_the_code_changes_only_the_own_policy_is_simulated_again(studied):
    study, results, _, _, folder = studied
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    _, store, _ = run(study, folder, Trust(own=True), "b")
    assert store.reused == len(results)
    # what was taken over is still known to be of the old code
    assert kept == {path.name: path.read_bytes() for path in folder.iterdir()}
    own = [each for each in results.values() if is_own(each.row.policy)]
    store = Store(folder, Trust(), "b")
    for step in study.steps(store):
        step.make(results)
    assert store.reused == len(results) - len(own)
    store = Store(folder, Trust(others=False), "b")
    for step in study.steps(store):
        step.make(results)
    assert store.reused == 0


def test_only_the_best_baselines_are_simulated_with_every_seed(studied):
    study, results, *_ = studied
    (case,) = study.cases
    second = [p for p in BASELINES if study.capacity(case, p, 1) in results]
    assert len(second) == 2
    first = {p: results[study.capacity(case, p, 0)].row.capacity_rps for p in BASELINES}
    assert min(first[p] for p in second) >= max(first[p] for p in BASELINES if p not in second)
    assert study.capacity(case, FIRST, 1) in results
    assert study.capacity(case, OWN, 1) in results


def test_tables_and_pictures(studied, tmp_path):
    study, results, *_ = studied
    figures = Figures(study, results)
    (case,) = study.cases
    first, own = figures.capacity(case, FIRST), figures.capacity(case, OWN)
    assert first.seeds == own.seeds == 2
    assert first.least <= first.median <= first.most
    text = all_tables(figures)
    start = f"| bimodal | {first.median:.2f}"
    row = next(line for line in text.splitlines() if line.startswith(start))
    # a capacity that the trace is too short to show is a bound: ">1.66"
    assert f"**{figures.ratio(case, OWN).median:.2f}" in row.replace(">", "")
    assert "80% of round_robin's" in text
    assert "Capacity at a target of 99.0%" in text
    for table in text.split("\n\n"):
        widths = {line.count("|") for line in table.splitlines() if line.startswith("|")}
        assert len(widths) <= 1
    files = draw_all(figures, tmp_path)
    assert {file.name for file in files} == {
        *("capacity-two.png", "capacity-two.svg"),
        *("sweep-two-bimodal.png", "sweep-two-bimodal.svg"),
    }
    assert all(file.stat().st_size > 1000 for file in files)


def test_a_load_is_a_share_of_a_capacity(studied):
    study, results, *_ = studied
    (case,) = study.cases
    rows = [results[study.load(case, OWN, FIRST, 0.8, seed)].row for seed in range(2)]
    scales = [results[study.capacity(case, FIRST, seed)].row.rate_scale for seed in range(2)]
    assert [row.rate_scale for row in rows] == pytest.approx([0.8 * sum(scales) / 2] * 2)


def test_where_a_search_begins_is_no_input_but_all_else_is(tmp_path):
    case = small_study().cases[0]
    task = Task(
        selection=case.workload.selection(None, None),
        policy=OWN,
        seed=0,
        settings=case.fleet.settings,
        search=Search(target=0.95),
    )
    digest = inputs_of(task)
    assert inputs_of(replace(task, rate_scale=3.0, search=Search(target=0.95, step=1.1))) == digest
    file = tmp_path / "t.csv"
    others = []
    for rows in ("a", "b"):
        file.write_text(rows)
        others.append(inputs_of(replace(task, selection=replace(task.selection, spec=str(file)))))
    others += [
        inputs_of(replace(task, search=Search(target=0.99))),
        inputs_of(replace(task, policy=f"{OWN}+harm=0")),
        inputs_of(replace(task, seed=1)),
        inputs_of(replace(task, search=None)),
        inputs_of(replace(task, settings=fleets()[0].settings)),
    ]
    assert len({digest, *others}) == len(others) + 1


def test_a_file_that_is_broken_is_simulated_again(studied, tmp_path):
    study, *_ = studied
    key = study.capacity(study.cases[0], FIRST, 0)
    step = next(step for step in study.steps(Store(tmp_path, Trust(), "a")) if step.key == key)
    (tmp_path / f"{key.replace(' ', '_')}.json").write_text(json.dumps({"inputs": 3}))
    assert isinstance(step.make({}), Task)


def test_the_digest_of_the_code_stays_as_long_as_the_code():
    assert sources_digest() == sources_digest()


@pytest.mark.parametrize("fleet", fleets(), ids=lambda fleet: fleet.name)
def test_every_fleet_can_be_simulated(fleet):
    settings = fleet.settings
    assert settings.slo.ttft_limit_s(4096) == 2.0
    assert len(settings.replicas) in {8, 16}


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_every_workload_is_there(workload):
    assert len(workload.selection(None, 20).open().requests) == 20


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--workload", "nope"), "--workload 'nope' is not known; allowed: bimodal, azure-code, "),
        (("--fleet", "nope"), "--fleet 'nope' is not known; allowed: equal, budget-1024, "),
        (("--traces", "nowhere"), "Directory 'nowhere' does not exist"),
        (
            ("--traces", ".", "--workload", "toolagent"),
            "toolagent.jsonl.gz: no such file",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(monkeypatch, tmp_path, capsys, arguments, complaint):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["study", *arguments])
    assert program.main() == 2
    told = capsys.readouterr()
    assert complaint in told.err
    assert told.err.count("\n") == 1
    assert not list(tmp_path.iterdir())
