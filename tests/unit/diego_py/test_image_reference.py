import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diego_py.image_reference import (
    BadReference,
    PreloadedRootfs,
    Reference,
    RegistryImage,
    StoredImage,
    held_as,
    host_of,
    parse,
)

DIGEST = "sha256:" + "0123456789abcdef" * 4

labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
names = st.builds(".".join, st.lists(labels, min_size=1, max_size=4))
ports = st.integers(1, 65_535).map(lambda port: f":{port}") | st.just("")
hosts = st.builds(str.__add__, names | st.sampled_from(["127.0.0.1", "[::1]", "[2001:db8::7]"]), ports)
components = st.from_regex(r"[a-z0-9]{1,8}((\.|_|__|-{1,3})[a-z0-9]{1,8}){0,2}", fullmatch=True)
repositories = st.builds("/".join, st.lists(components, min_size=1, max_size=4))
tags = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", fullmatch=True)
digests = st.text("0123456789abcdef", min_size=64, max_size=64).map("sha256:{}".format)
steps = st.text(string.ascii_letters + string.digits + "._+=,~@-", min_size=1, max_size=12).filter(
    lambda step: step not in (".", "..")
)
paths = st.lists(steps, min_size=1, max_size=4).map(lambda all_steps: "/" + "/".join(all_steps))
references = st.one_of(
    st.builds(RegistryImage, hosts | st.just(""), repositories, tags, digests | st.just("")),
    st.builds(StoredImage, paths, tags | st.just("")),
    st.builds(PreloadedRootfs, components),
)


@given(references)
def test_what_is_written_is_read_again(reference: Reference) -> None:
    assert parse(str(reference)) == reference


@given(hosts, repositories, tags)
def test_diegos_form_means_the_same(host: str, repository: str, tag: str) -> None:
    assert parse(f"docker://{host}/{repository}#{tag}") == parse(f"docker://{host}/{repository}:{tag}")


@given(st.text(max_size=60))
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    for scheme in ("docker://host/", "docker:///", "docker://", "oci:/", "oci:", "preloaded:", ""):
        try:
            reference = parse(scheme + text)
        except BadReference:
            continue
        assert parse(str(reference)) == reference
        written = str(reference).partition(":")[2]
        assert ".." not in written.split("/")
        assert not any(character in written for character in " \n\0")
        assert isinstance(reference, PreloadedRootfs) or written.isascii()


@pytest.mark.parametrize(
    ("text", "image"),
    [
        ("docker:///library/busybox#latest", RegistryImage("", "library/busybox")),
        ("docker:///busybox", RegistryImage("", "busybox")),
        ("docker://Registry.Example:5000/a/b:1.2", RegistryImage("registry.example:5000", "a/b", "1.2")),
        (f"docker://h/a@{DIGEST}", RegistryImage("h", "a", "latest", DIGEST)),
        (f"docker://h/a:t@{DIGEST}", RegistryImage("h", "a", "t", DIGEST)),
        (f"docker://h/a#{DIGEST}", RegistryImage("h", "a", "latest", DIGEST)),
        ("oci:/srv/images/app", StoredImage("/srv/images/app")),
        ("oci:/srv/app.tar:v1", StoredImage("/srv/app.tar", "v1")),
        ("preloaded:cflinuxfs4", PreloadedRootfs("cflinuxfs4")),
    ],
)
def test_forms(text: str, image: Reference) -> None:
    assert parse(text) == image


def test_a_digest_decides_over_a_tag() -> None:
    assert RegistryImage("h", "a", "t", DIGEST).wanted == DIGEST
    assert RegistryImage("h", "a", "t").wanted == "t"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "docker:",
        "docker:host/repo",
        "docker://host",
        "docker://host/",
        "docker://host/UPPER",
        "docker://host/a/../b",
        "docker://host/./b",
        "docker://host//b",
        "docker://host/a:",
        "docker://host/a#",
        "docker://host/a#x:y",
        "docker://host/a:b#c",
        f"docker://host/a@{DIGEST}#c",
        "docker://host/a@sha256:12",
        "docker://host/a@md5:" + "0" * 32,
        "docker://host/a:" + "t" * 129,
        "docker://host:0/a",
        "docker://host:70000/a",
        "docker://-host/a",
        "docker://ho_st/a",
        "docker://host/a?b=c",
        "docker://host/a%2e%2e",
        "docker://host/" + "a" * 300,
        "oci:relative",
        "oci:",
        "oci:/",
        "oci:/a/../b",
        "oci:/a/./b",
        "oci:/a//b",
        "oci:/a b",
        "oci:/a:tag:more",
        "oci:/a\0b",
        "preloaded:",
        "preloaded:a/b",
        "ftp://host/a",
        "docker://host/a\n",
    ],
)
def test_what_names_nothing_is_refused(text: str) -> None:
    with pytest.raises(BadReference):
        parse(text)


def test_credentials_are_refused_and_not_repeated() -> None:
    with pytest.raises(BadReference, match="image_password") as refused:
        parse("docker://user:hunter2@host/repo")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("docker://HOST/a", "docker://host/a:latest"),
        ("docker://host/a#v1", "docker://host/a:v1"),
        (f"docker:///a:v1@{DIGEST}", f"docker:///a@{DIGEST}"),
        ("oci:/a.tar:v1", "oci:/a.tar:v1"),
        ("preloaded:busybox", None),
    ],
)
def test_an_image_is_held_under_one_name_however_it_is_spelled(text: str, name: str | None) -> None:
    assert held_as(text) == name
    assert name is None or held_as(name) == name


@given(hosts)
def test_a_host_of_the_settings_is_that_of_references(host: str) -> None:
    assert RegistryImage(host_of(host), "a") == parse(f"docker://{host}/a")
