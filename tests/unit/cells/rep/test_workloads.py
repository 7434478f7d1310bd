"""What definitions say of files becomes downloads before the setup."""

from __future__ import annotations

import pytest
from attrs import evolve

from cells.executor.steps.download import Download
from cells.executor.steps.mounted_files import File, MountedFiles
from cells.executor.steps.parallel import Parallel
from cells.executor.steps.run import Run
from cells.executor.steps.serial import Serial
from cells.executor.transfers.fetch import Checksum
from cells.executor.transfers.transfers import Source
from cells.garden.spec import BindMount, TmpfsMount
from cells.rep.workloads import workload_of
from diego_py.errors import Outcome, VolumeDriverMissing
from diego_py.models.actions import Action, ChecksumAlgorithm, RunAction
from diego_py.models.image import (
    CachedDependency,
    DigestAlgorithm,
    ImageLayer,
    LayerType,
    MediaType,
    SharedDevice,
    VolumeMode,
    VolumeMount,
    VolumeMountedFile,
)
from diego_py.secret import Secret
from tests.fakes.cell import plan_of, work

URL = "http://files.example/a"
SHA256 = {"digest_algorithm": DigestAlgorithm.SHA256, "digest_value": "00ff"}


def layer(kind: LayerType, **more: object) -> ImageLayer:
    return ImageLayer(url=URL, destination_path="/to", layer_type=kind, media_type=MediaType.TGZ, **more)  # type: ignore[arg-type]


def downloads(**fields: object) -> tuple[Download, ...]:
    setup = workload_of(work(**fields).definition, 60.0).setup  # type: ignore[arg-type]
    assert isinstance(setup, Serial)
    assert isinstance(setup.steps[0], Parallel)
    return setup.steps[0].steps  # type: ignore[return-value]


def test_nothing_to_do_before() -> None:
    assert workload_of(work().definition, 60.0).setup is None


def test_files_come_before_the_setup() -> None:
    action = Action(run=RunAction(path="/bin/a", user="u"))
    setup = workload_of(work(setup=action, image_layers=(layer(LayerType.SHARED),)).definition, 60.0).setup
    assert isinstance(setup, Serial)
    assert [type(step) for step in setup.steps] == [Parallel, Run]


def test_files_with_content_come_first_in_memory_of_their_own() -> None:
    files = (VolumeMountedFile(path="db/password", content=Secret("p")), VolumeMountedFile(path="db/user"))
    made = work(volume_mounted_files=files, image_layers=(layer(LayerType.SHARED),))
    setup = workload_of(made.definition, 60.0).setup
    assert isinstance(setup, Serial)
    assert [type(step) for step in setup.steps] == [MountedFiles, Parallel]
    assert setup.steps[0] == MountedFiles(
        "/etc/cf-service-bindings", (File("db/password", Secret("p")), File("db/user", Secret(""))), "root"
    )
    (mount,) = plan_of(made, 60.0).spec.mounts
    assert isinstance(mount, TmpfsMount)
    assert mount.destination == "/etc/cf-service-bindings"
    assert "Secret" not in repr(files)
    assert plan_of(work(), 60.0).spec.mounts == ()


def test_volumes_are_directories_of_the_cell() -> None:
    volume = VolumeMount(
        driver="local", container_dir="/data", mode=VolumeMode.READ_WRITE, shared=SharedDevice(volume_id="/srv/data")
    )
    read_only = evolve(volume, mode=VolumeMode.READ_ONLY)
    made = work(volume_mounts=(volume, read_only))
    assert plan_of(made, 60.0).spec.mounts == (
        BindMount("/srv/data", "/data", readonly=False),
        BindMount("/srv/data", "/data", readonly=True),
    )
    with pytest.raises(VolumeDriverMissing, match="driver nfs") as caught:
        plan_of(work(volume_mounts=(evolve(volume, driver="nfs"),)), 60.0)
    assert caught.value.elsewhere
    assert caught.value.outcome is Outcome.NOT_STARTED


def test_dependencies_are_kept_under_their_key_or_their_url() -> None:
    plain = CachedDependency(from_=URL, to="/to", name="lib")
    sha1, keyed = ChecksumAlgorithm.SHA1, {"cache_key": "k", "log_source": "L"}
    full = CachedDependency(from_=URL, to="/to", checksum_algorithm=sha1, checksum_value="00", **keyed)  # type: ignore[arg-type]
    assert downloads(cached_dependencies=(plain, full), legacy_download_user="vcap", log_source="APP") == (
        Download(Source(URL, URL), "/to", "vcap", "lib", "APP"),
        Download(Source(URL, "k", Checksum("sha1", "00")), "/to", "vcap", "", "L"),
    )


def test_shared_layers_are_kept_under_their_digest_and_exclusive_ones_are_not() -> None:
    layers = (layer(LayerType.SHARED), layer(LayerType.SHARED, **SHA256), layer(LayerType.EXCLUSIVE, **SHA256))
    checksum = Checksum("sha256", "00ff")
    assert downloads(image_layers=layers, legacy_download_user="vcap") == (
        Download(Source(URL, URL), "/to", "root"),
        Download(Source(URL, "sha256:00ff", checksum), "/to", "root"),
        Download(Source(URL, "", checksum), "/to", "vcap"),
    )
