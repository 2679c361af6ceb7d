"""A trial's mirror: what is there after which fault, on a real S3 server."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.s3 import CREDENTIALS, S3, s3, skip_where_missing
from trainables import checkpoints, incarnations, mirror, node_folders
from trainables.incarnations import Incarnation, Superseded
from trainables.mirror import Mirror, TrialMirror
from trainables.mirror_store import MirrorAway, MirrorStore
from trainables.mirror_uri import mistake
from tune_lora.errors import InputError

PARAMS = {"learning_rate": 1e-3}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    skip_where_missing()
    with s3(tmp_path_factory.mktemp("s3")) as running:
        running.make("studies")
        yield running


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


class Node:
    """A machine with a disk of its own."""

    def __init__(self, uri: str, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._uri, self._disk, self._monkeypatch = uri, disk, monkeypatch

    def begin(self, number: int = 0, token: str = "t", params: dict[str, float] = PARAMS) -> Running:
        self._monkeypatch.setenv(node_folders.NODE_FOLDER, str(self._disk))
        return Running(Mirror(self._uri, "study", token).of(number, params, seed=1))

    def prepared(self) -> TrialMirror:
        """A trial that was fetched and has not begun."""
        self._monkeypatch.setenv(node_folders.NODE_FOLDER, str(self._disk))
        trial = Mirror(self._uri, "study", "t").of(0, PARAMS, seed=1)
        trial.pull()
        return trial


class Running:
    """An incarnation of a trial, as the trainable has it."""

    def __init__(self, trial: TrialMirror) -> None:
        self.trial, self.folder = trial, trial.folder
        trial.pull()
        self.incarnation = Incarnation.begin(self.folder)
        self.restored, self.damaged = checkpoints.restorable(self.folder)
        self.incarnation.goes_on_from(self.restored)
        trial.push(self.incarnation.number)

    def report(self, budget: int) -> None:
        (self.folder / "images").mkdir(exist_ok=True)
        (self.folder / "images" / f"{budget}.png").write_bytes(b"image %d" % budget)
        self.incarnation.report({"budget": budget, "seconds": 1.0})
        checkpoints.write(
            self.folder,
            budget,
            lambda into: (into / "weights.bin").write_bytes(b"w%d" % budget) and None,
            incarnation=self.incarnation.number,
        )
        self.trial.push(self.incarnation.number)

    def weights(self) -> bytes | None:
        return (self.restored.path / "weights.bin").read_bytes() if self.restored else None


@pytest.fixture
def uri(server: S3, request: pytest.FixtureRequest) -> str:
    return server.uri("studies", request.node.name)


@pytest.fixture
def nodes(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Node, Node]:
    return Node(uri, tmp_path / "one", monkeypatch), Node(uri, tmp_path / "two", monkeypatch)


def there(uri: str, number: int = 0) -> dict[str, int]:
    return MirrorStore(uri).listing(f"study/trials/{number}")


def test_another_node_goes_on_from_the_newest_checkpoint(nodes: tuple[Node, Node], uri: str) -> None:
    one, two = nodes
    first = one.begin()
    assert first.restored is None
    for budget in (1, 2, 3):
        first.report(budget)
    shutil.rmtree(first.folder)  # the node is gone with its disk
    second = two.begin()
    assert second.weights() == b"w3"
    assert second.incarnation.number == 2
    assert second.restored is not None
    assert [one["budget"] for one in incarnations.reported(second.folder, second.restored)] == [1, 2, 3]
    assert {"files/images/1.png", "files/images/3.png", "identity.json"} <= set(there(uri))


def test_two_checkpoints_stay_there(nodes: tuple[Node, Node], uri: str) -> None:
    running = nodes[0].begin()
    for budget in range(1, 6):
        running.report(budget)
    kept = {key.split("/")[1] for key in there(uri) if key.startswith("checkpoints/")}
    assert kept == {"0001-00000004", "0001-00000005"}


def test_a_checkpoint_that_was_not_copied_whole_is_none(nodes: tuple[Node, Node], uri: str) -> None:
    running = nodes[0].begin()
    running.report(1)
    running.report(2)
    MirrorStore(uri).drop(f"study/trials/0/checkpoints/0001-00000002/{checkpoints.MANIFEST}")
    assert nodes[1].begin().weights() == b"w1"


def test_a_checkpoint_that_was_damaged_there_is_passed_over(nodes: tuple[Node, Node], uri: str) -> None:
    running = nodes[0].begin()
    running.report(1)
    running.report(2)
    MirrorStore(uri).put_bytes(b"xx", "study/trials/0/checkpoints/0001-00000002/weights.bin")
    second = nodes[1].begin()
    assert second.weights() == b"w1"
    assert len(second.damaged) == 1 and "weights.bin" in second.damaged[0]


def test_a_node_that_was_taken_for_lost_spoils_nothing(nodes: tuple[Node, Node], uri: str) -> None:
    cut_off = nodes[0].begin()
    cut_off.report(1)
    second = nodes[1].begin()
    with pytest.raises(Superseded):
        cut_off.report(2)
    second.report(2)
    third = nodes[0].begin()
    assert third.restored is not None
    assert (third.restored.budget, third.restored.incarnation) == (2, 2)


def test_another_study_of_the_name_begins_anew(nodes: tuple[Node, Node], uri: str) -> None:
    nodes[0].begin(token="earlier").report(5)
    begun = nodes[0].begin(token="later")
    assert begun.restored is None and begun.incarnation.number == 1
    assert not [key for key in there(uri) if key.startswith(("checkpoints/", "files/"))]


def test_a_trial_of_the_number_with_other_parameters_begins_anew(nodes: tuple[Node, Node]) -> None:
    nodes[0].begin().report(5)
    assert nodes[1].begin(params={"learning_rate": 1e-2}).restored is None


def test_a_node_forgets_trials_that_are_mirrored(nodes: tuple[Node, Node]) -> None:
    done = nodes[0].begin(number=0)
    done.report(1)
    running = nodes[0].begin(number=1)
    assert done.folder.is_dir()
    done.trial.done()
    third = nodes[0].begin(number=2)
    assert not done.folder.exists()
    assert running.folder.is_dir() and third.folder.is_dir()
    assert nodes[0].begin(number=0).weights() == b"w1"


def test_two_studies_of_a_name_share_no_folder_of_a_node(uri: str, nodes: tuple[Node, Node]) -> None:
    one = nodes[0].begin(token="one-study")
    one.report(1)
    other = nodes[0].begin(token="another-study")  # in the mirror it takes the trial's place; here both are at work
    assert one.folder != other.folder
    assert (one.folder / "images" / "1.png").is_file()


def test_a_nodes_folder_is_its_owners_alone(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(node_folders.NODE_FOLDER, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    trial = Mirror(uri, "study", "t").of(0, PARAMS, seed=1)
    node_folders.node_folder().mkdir(mode=0o777)
    node_folders.node_folder().chmod(0o777)
    trial.pull()
    for folder in (node_folders.node_folder(), trial.folder.parents[1]):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_a_folder_that_another_user_made_is_not_used(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(node_folders.NODE_FOLDER, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    node_folders.node_folder().mkdir()
    os.chown(node_folders.node_folder(), 12345, -1)
    with pytest.raises(MirrorAway, match=r"belongs to user 12345.*set TUNE_LORA_NODE_FOLDER"):
        Mirror(uri, "study", "t").of(0, PARAMS, seed=1).pull()


def test_a_link_is_no_folder_of_a_node(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(node_folders.NODE_FOLDER, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    node_folders.node_folder().symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MirrorAway, match="is no folder"):
        Mirror(uri, "study", "t").of(0, PARAMS, seed=1).pull()
    assert not list((tmp_path / "elsewhere").iterdir())


def test_of_two_that_begin_at_once_one_goes_on(nodes: tuple[Node, Node], uri: str) -> None:
    nodes[0].begin().report(1)
    one, two = nodes[0].prepared(), nodes[1].prepared()  # both fetched the same listing
    numbers = [Incarnation.begin(trial.folder).number for trial in (one, two)]
    assert numbers == [2, 2]
    one.push(2)
    with pytest.raises(Superseded):
        two.push(2)
    one.push(2)
    assert nodes[1].begin().incarnation.number == 3
    with pytest.raises(Superseded):
        one.push(2)


def test_one_whose_claim_was_overwritten_copies_nothing_more(nodes: tuple[Node, Node], uri: str) -> None:
    running = nodes[0].begin()
    running.report(1)
    MirrorStore(uri).put_bytes(b"somebody else's", "study/trials/0/reports/0001.claim")
    before = there(uri)
    with pytest.raises(Superseded):
        running.report(2)
    assert there(uri) == before


def test_a_start_that_died_before_its_first_report_is_passed(nodes: tuple[Node, Node], uri: str) -> None:
    nodes[0].begin().report(1)
    MirrorStore(uri).put_bytes(b"of one that is gone", "study/trials/0/reports/0002.claim")
    after = nodes[1].begin()
    assert after.incarnation.number == 3
    assert after.weights() == b"w1"


def test_what_failed_here_is_copied_before_its_folder_goes(nodes: tuple[Node, Node], uri: str) -> None:
    failed = nodes[0].begin(number=0)
    failed.trial.done()  # as the adapter does when a trial fails, before its last words are copied
    (failed.folder / "traceback.txt").write_text("why")
    failed.trial.push(1)
    nodes[0].begin(number=1)
    assert "files/traceback.txt" in there(uri)
    assert failed.folder.is_dir()  # until it is told again that it may go
    failed.trial.done()
    nodes[0].begin(number=1)
    assert not failed.folder.exists()


def test_a_folder_that_went_meanwhile_is_one_error_that_is_known(nodes: tuple[Node, Node]) -> None:
    failed = nodes[0].begin()
    shutil.rmtree(failed.folder)
    with pytest.raises(MirrorAway, match="is gone"):
        failed.trial.push(1)


def test_images_are_named_where_the_driver_keeps_them() -> None:
    result = {
        "budget": 2,
        "images": {"a": "/node/study/trials/7/images/a.png"},
        "missed": [{"budget": 1, "images": {"b": "/other/study/trials/7/b.png"}}],
    }
    found = mirror.told(result, Path("/results/study/trials/7"))
    assert found["images"] == {"a": "/results/study/trials/7/images/a.png"}
    assert found["missed"][0]["images"] == {"b": "/results/study/trials/7/b.png"}


# --- mistakes --------------------------------------------------------------------------------------------------------


def test_a_bucket_that_is_absent_is_told_before_anything_runs(server: S3) -> None:
    with pytest.raises(InputError, match=r"resources\.mirror: s3://absent/x.*the bucket does not exist") as told:
        MirrorStore(server.uri("absent", "x"), patience=0.0).check()
    assert "\n" not in str(told.value)


def test_a_server_that_is_absent_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "s3://studies?scheme=http&endpoint_override=127.0.0.1:1&region=us-east-1"
    with pytest.raises(InputError, match="nothing answers there"):
        MirrorStore(uri, patience=0.0).check()


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("s3://KEY:hidden-word@bucket/x", "credentials"),
        ("bucket/x", "must be a place in object storage"),
        ("s3:bucket", "must be a place in object storage"),
    ],
)
def test_what_is_no_place_is_told_without_its_secret(uri: str, why: str) -> None:
    with pytest.raises(InputError, match=why) as told:
        MirrorStore(uri)
    assert "hidden-word" not in str(told.value)


def test_an_unknown_kind_of_storage_is_told() -> None:
    with pytest.raises(InputError, match="gopher"):
        MirrorStore("gopher://hole/x")


@given(st.text(max_size=60))
def test_any_text_is_a_place_or_one_line(text: str) -> None:
    why = mistake(text)
    assert why is None or ("must be" in why and "\n" not in why.replace(repr(text), ""))


@pytest.mark.parametrize(
    "query",
    [
        *("client_secret=planted", "access_key=planted&region=x", "region=x&secret_key=planted", "sas_token=planted"),
        *(
            "accountKey=planted",
            "sig=planted",
            "sv=1&SIG=planted",
            "password=",
            "client%5Fsecret=planted",
            "key=planted",
        ),
    ],
)
def test_a_secret_in_the_query_is_refused_and_not_repeated(query: str) -> None:
    why = mistake(f"abfs://container/path?{query}")
    assert why is not None and "must be without" in why and "planted" not in why and "\n" not in why


@pytest.mark.parametrize(
    "query",
    [
        *("scheme=http&endpoint_override=127.0.0.1:9000&region=us-east-1", "allow_bucket_creation=true"),
        *("tenant_id=a&client_id=b", "credential_kind=workload_identity", "retry_limit_seconds=3", "design=a"),
    ],
)
def test_what_is_no_secret_may_stand_in_the_query(query: str) -> None:
    assert mistake(f"s3://bucket/path?{query}") is None


def test_a_fault_that_does_not_pass_ends_in_one_line(server: S3) -> None:
    store = MirrorStore(server.uri("absent"), patience=60.0)
    with pytest.raises(MirrorAway, match="bucket does not exist") as told:
        store.put_bytes(b"", "x")
    assert "\n" not in str(told.value)


def test_objects_whose_names_lead_elsewhere_are_not_there(server: S3) -> None:
    place = server.uri("studies", "hostile")
    client = server.client()
    for name in ("hostile/a/../../outside", "hostile/a/inside"):
        client.put_object(Bucket="studies", Key=name, Body=b"x")
    assert list(MirrorStore(place).listing("a")) == ["inside"]


def test_folders_of_a_shared_disk_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(tmp_path.as_uri() + "/mirror", tmp_path / "node", monkeypatch)
    node.begin().report(1)
    shutil.rmtree(tmp_path / "node")
    assert node.begin().weights() == b"w1"
    assert json.loads((tmp_path / "mirror/study/trials/0/checkpoints/0001-00000001/.manifest.json").read_text())
