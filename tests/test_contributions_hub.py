"""Contributions on the Hub: each acknowledged one there exactly once, whatever fails; withdrawn ones nowhere."""

import threading

import datasets
import pytest
from huggingface_hub import HfApi

from fer_hf.contributions import (
    ContributionRepo,
    ContributionStore,
    HubStore,
    Offer,
    Pusher,
    RepositoryFault,
    repository,
)
from fer_hf.contributions import hub_store as hub_store_module
from fer_hf.contributions.entries import key_of, path_of
from tests.contribution_runs import LABELS, REPO, give_under_fire, on_hub, picture, traces


@pytest.fixture
def store(tmp_path):
    return ContributionStore(tmp_path / "store", LABELS, REPO)


@pytest.fixture
def pusher(hub, store):
    return Pusher(store, ContributionRepo(REPO))


@pytest.fixture
def direct(hub, monkeypatch):
    monkeypatch.setattr(hub_store_module, "PATIENCE_S", 0.0)
    return HubStore(ContributionRepo(REPO), LABELS)


def give(store, *numbers, label="happy") -> str:
    return store.add([Offer(picture(number), label, "sad") for number in numbers], consent=True)


def keys(hub, **where) -> list[str]:
    return sorted({row["receipt"] for row in on_hub(hub, **where)})


def test_what_was_given_is_on_the_hub_and_loads_as_unreviewed(hub, store, pusher):
    receipt = give(store, 1, 2, label="sad")
    give(store, 3)
    pusher.push()
    assert HfApi().repo_info(REPO, repo_type="dataset").private
    loaded = datasets.load_dataset(REPO)
    assert list(loaded) == ["unreviewed"]
    rows = {row["image"].tobytes(): row for row in loaded["unreviewed"]}
    assert set(rows) == {picture(number).tobytes() for number in (1, 2, 3)}
    assert rows[picture(2).tobytes()]["label"] == "sad"
    assert rows[picture(2).tobytes()]["receipt"] == key_of(receipt)
    assert all(receipt.encode() not in path.read_bytes() for path in hub.store.root.rglob("*") if path.is_file())
    assert len(hub.asked("POST .*/commit/")) == 1


def test_a_second_round_sends_nothing_and_a_lost_notebook_doubles_nothing(hub, store, pusher):
    give(store, 1)
    pusher.push()
    before = len(hub.requests)
    pusher.push()
    assert len(hub.requests) == before
    (store.folder / "hub.jsonl").unlink()
    pusher.push()
    assert len(hub.asked("POST .*/commit/")) == 1
    pusher.push()
    assert len(on_hub(hub)) == 1


FAULTS = [
    ({"status": 401}, "token"),
    ({"status": 403}, "does not let this token write"),
    ({"status": 404}, "no such data set"),
    ({"status": 429, "headers": {"Retry-After": "7"}}, "in 7 seconds"),
    ({"status": 500}, "answers with an error \\(500\\)"),
    ({"drop": True}, "cannot be reached"),
    ({"half_body": True}, "cannot be reached"),
    ({"wrong_body": True}, "cannot be read"),
]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("fault", "sentence"), FAULTS)
def test_each_fault_gets_its_sentence_and_costs_nothing(hub, store, pusher, fault, sentence, after):
    give(store, 1)
    where = "POST .*/commit/" if after else "GET /api/datasets/user/faces/revision"
    if not after:
        HfApi().create_repo(REPO, repo_type="dataset")
    if after and fault.get("status") == 404:
        hub.fail(where, after=True, **fault)  # taken for a change underneath, and looked at again
        pusher.push()
    else:
        hub.fail(where, after=after, times=2 if fault.get("status") in (401, 404) else 1, **fault)
        with pytest.raises(RepositoryFault, match=sentence) as caught:
            pusher.push()
        assert "\n" not in str(caught.value)
        assert caught.value.sent == after
        hub.faults.clear()
        pusher.push()
    assert len(on_hub(hub)) == 1


@pytest.mark.parametrize("pattern", ["GET .*/revision/", "POST .*/commit/"])
def test_a_hub_that_hangs_is_not_waited_for_without_end(hub, store, pusher, monkeypatch, pattern):
    give(store, 1)
    with monkeypatch.context() as patch:
        patch.setattr(repository, "TIMEOUT_S", 0.2)
        hub.fail(pattern, hang_s=60)  # and then an answer, which is no fault
        with pytest.raises(RepositoryFault, match="cannot be reached"):
            pusher.push()
    pusher.push()
    assert len(on_hub(hub)) == 1


def test_waits_grow_and_heed_what_the_hub_asks_for(store, hub):
    pusher = Pusher(store, ContributionRepo(REPO), every_s=10, longest_s=60)
    fault = RepositoryFault(REPO, "busy", passing=True, retry_after_s=600)
    assert [pusher.wait_s(faults) for faults in (0, 1, 2, 3)] == [10, 20, 40, 60]
    assert pusher.wait_s(1, fault) == 600


def test_the_thread_goes_on_after_faults(hub, store):
    hub.fail(".", times=3, status=503)
    give(store, 1)
    pusher = Pusher(store, ContributionRepo(REPO), every_s=0.01).start()
    for _ in range(1000):
        if (store.folder / "hub.jsonl").is_file():
            break
        threading.Event().wait(0.01)
    pusher.stop()
    assert len(on_hub(hub)) == 1
    assert hub.requests[0].status == 503


def test_somebody_elses_commit_in_between_is_no_fault(hub, store, pusher):
    HfApi().create_repo(REPO, repo_type="dataset")

    def commit():
        repo = hub.store.get("dataset", REPO)
        files = repo.files("main") | {"note.txt": repo.put_blob(b"hello")}
        repo.write_commit("refs/heads/main", repo.resolve("main"), files, "note", "", "user")

    give(store, 1)
    hub.fail("POST .*/commit/", call=commit)
    pusher.push()
    assert [request.status for request in hub.asked("POST .*/commit/")] == [412, 200]
    assert "note.txt" in HfApi().list_repo_files(REPO, repo_type="dataset")
    assert len(on_hub(hub)) == 1


def test_a_lost_picture_holds_up_nobody_and_goes_when_it_is_found(hub, store, pusher, caplog):
    give(store, 1)
    give(store, 2)
    picture = next(iter(store.folder.glob("pictures/*")))
    picture.rename(store.folder / "away")
    pusher.push()
    pusher.push()
    assert len(on_hub(hub)) == 1
    assert [record.getMessage().split(":")[0] for record in caplog.records if "fer_hf" in record.name] == [
        "A contribution is passed by"
    ]
    (store.folder / "away").rename(picture)
    pusher.push()
    assert len(on_hub(hub)) == 2


def test_only_one_process_pushes_a_store(hub, store, pusher):
    give(store, 1)
    with pusher._alone() as alone, Pusher(store, pusher.repo)._alone() as second:
        assert (alone, second) == (True, False)
        Pusher(store, pusher.repo).push()
    assert hub.requests == []


def test_a_withdrawal_leaves_no_trace_and_nothing_brings_it_back(hub, store, pusher):
    mine, other = give(store, 1, 2), give(store, 1)
    pusher.push()
    assert len(traces(hub, mine)) >= 2
    assert store.withdraw(mine) == 2
    (store.folder / "hub.jsonl").unlink()
    pusher.push()
    assert traces(hub, mine) == []
    assert keys(hub) == [key_of(other)]
    pusher.push()
    assert keys(hub) == [key_of(other)]


def test_what_was_never_sent_is_never_sent_once_withdrawn(hub, store, pusher):
    receipt = give(store, 1)
    store.withdraw(receipt)
    pusher.push()
    assert hub.asked("POST .*/commit/") == []
    assert traces(hub, receipt) == []


def test_an_upload_without_a_commit_is_deleted_too(hub, store, pusher):
    receipt = give(store, 1)
    hub.fail("POST .*/commit/", status=500)
    with pytest.raises(RepositoryFault):
        pusher.push()
    assert len(traces(hub, receipt)) == 1
    store.withdraw(receipt)
    pusher.push()
    assert traces(hub, receipt) == []


REMOVING = ["GET .*/lfs-files", "POST .*/lfs-files/batch", "POST .*/paths-info", "POST .*/commit/"]


@pytest.mark.parametrize("pattern", REMOVING)
@pytest.mark.parametrize("after", [False, True])
def test_a_withdrawal_that_broke_off_is_carried_out_later(hub, store, pusher, pattern, after):
    mine, other = give(store, 1), give(store, 2)
    pusher.push()
    store.withdraw(mine)
    hub.store.rewrites_history = False
    hub.fail(pattern, status=403, after=after)
    with pytest.raises(RepositoryFault):
        pusher.push()
    pusher.push()
    assert len(list((hub.store.get("dataset", REPO).folder / "lfs").iterdir())) == 1
    assert keys(hub) == [key_of(other)]


def test_pull_requests_gather_until_they_are_merged(hub, store):
    pusher = Pusher(store, ContributionRepo(REPO, as_pull_requests=True))
    give(store, 1)
    hub.fail("POST .*/commit/", drop=True, after=True)  # the request is opened, and its answer is lost
    with pytest.raises(RepositoryFault):
        pusher.push()
    pusher.push()
    give(store, 2)
    pusher.push()
    requests = list(HfApi().get_repo_discussions(REPO, repo_type="dataset"))
    assert [(one.num, one.status) for one in requests] == [(1, "open")]
    assert on_hub(hub) == []
    assert len(on_hub(hub, revision="refs/pr/1")) == 2
    HfApi().merge_pull_request(REPO, 1, repo_type="dataset")
    mine = give(store, 3)
    pusher.push()
    assert len(on_hub(hub)) == 2
    assert key_of(mine) in keys(hub, revision="refs/pr/2")
    store.withdraw(mine)
    pusher.push()
    assert traces(hub, mine) == []


def test_a_request_merged_this_moment_loses_nothing(hub, store):
    pusher = Pusher(store, ContributionRepo(REPO, as_pull_requests=True))
    give(store, 1)
    pusher.push()
    mine = give(store, 2)
    merge = threading.Thread(target=HfApi().merge_pull_request, args=(REPO, 1), kwargs={"repo_type": "dataset"})
    hub.fail("POST .*/commit/", call=lambda: (merge.start(), merge.join()))
    pusher.push()
    assert key_of(mine) in keys(hub, revision="refs/pr/2")


def test_without_a_disk_the_hub_has_it_before_the_receipt_is_given(hub, direct):
    receipt = give(direct, 1, 2)
    assert keys(hub) == [key_of(receipt)]
    assert direct.withdraw("guess") == 0
    assert direct.withdraw(f" {receipt} ") == 2
    assert traces(hub, receipt) == []
    assert direct.withdraw(receipt) == 0


def test_without_a_disk_what_only_history_has_is_withdrawn_too(hub, direct):
    receipt = give(direct, 1, 2)
    HfApi().delete_file(path_of(key_of(receipt)), REPO, repo_type="dataset", commit_message="Tidy up")
    assert on_hub(hub) == []
    assert direct.withdraw(receipt) == 1  # how many pictures it had is not known any more
    assert traces(hub, receipt) == []
    assert direct.withdraw(receipt) == 0


def test_other_data_sets_that_contributions_were_sent_to_are_named(hub, store, pusher, caplog):
    give(store, 1)
    pusher.push()
    Pusher(store, ContributionRepo(REPO)).start().stop()
    assert "stays there" not in caplog.text
    Pusher(store, ContributionRepo("user/others")).start().stop()
    assert f"Contributions were sent to {REPO} before" in caplog.text


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("fault", [{"status": 403}, {"status": 500}, {"status": 429}, {"drop": True}])
def test_without_a_disk_what_is_not_taken_is_not_there(hub, direct, fault, after):
    hub.fail("POST .*/commit/", after=after, **fault)
    with pytest.raises(ValueError, match=r"^Nothing was stored\. user/faces: ") as caught:
        give(direct, 1)
    assert "\n" not in str(caught.value)
    repo = hub.store.get("dataset", REPO)
    assert on_hub(hub) == []
    assert list((repo.folder / "lfs").iterdir()) == []


def test_without_a_disk_a_lost_answer_is_looked_into(hub, direct, monkeypatch):
    monkeypatch.setattr(hub_store_module, "PATIENCE_S", 9.0)
    monkeypatch.setattr(hub_store_module, "FIRST_WAIT_S", 0.01)
    hub.fail("POST .*/commit/", drop=True, after=True)
    receipt = give(direct, 1)
    assert keys(hub) == [key_of(receipt)]
    assert len(hub.asked("POST .*/commit/")) == 1
    assert len(on_hub(hub)) == 1


def test_without_a_disk_and_without_a_way_to_ask_the_id_is_told(hub, direct):
    hub.fail("POST .*/commit/", drop=True, after=True)
    hub.fail("GET /api/datasets/user/faces/revision", skip=2, times=99, status=500)
    with pytest.raises(ValueError, match="withdraw it later with the id") as caught:
        give(direct, 1)
    hub.faults.clear()
    receipt = str(caught.value).partition("with the id ")[2].partition(". ")[0]
    assert direct.withdraw(receipt) == 1
    assert traces(hub, receipt) == []


@pytest.mark.parametrize("pattern", REMOVING)
def test_without_a_disk_a_broken_withdrawal_can_be_repeated(hub, direct, pattern):
    receipt = give(direct, 1)
    hub.store.rewrites_history = False
    hub.fail(pattern, status=403)
    with pytest.raises(ValueError, match="not withdrawn yet; keep your id"):
        direct.withdraw(receipt)
    assert direct.withdraw(receipt) == 1
    assert on_hub(hub) == []
    assert list((hub.store.get("dataset", REPO).folder / "lfs").iterdir()) == []


def test_names_that_cannot_be_repositories_are_refused():
    for name in ("faces", "a/b/c", "user/bad name"):
        with pytest.raises(ValueError, match="such as user/"):
            ContributionRepo(name)


def test_killed_five_times_among_a_hundred(hub, tmp_path):
    give_under_fire(hub, tmp_path, entries=100, kills=5, seed=0)
