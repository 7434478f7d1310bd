"""What can go wrong before an image is on the cell: the reference, the registry, the image's own documents."""

from __future__ import annotations

from typing import ClassVar

from diego_py.errors.base import DOCTOR, DiegoError, Fault, Next


class ImageNotAllowed(DiegoError):
    """The cell's configuration does not let images come from there."""

    code = "image.not_allowed"
    title = "The cell does not take images from there"
    fault = Fault.CALLER
    next: ClassVar[tuple[Next, ...]] = (Next("Use another rootfs, or set what the detail names in the cell's config"),)


class RegistryNotAllowed(DiegoError):
    """The cell does not connect there for images: its config does not name the registry, or the address is not public.

    Of a name, the address is judged at which it is found when the cell is about to connect, and so after each redirect.
    """

    code = "registry.not_allowed"
    title = "The cell does not go there for images"
    fault = Fault.CALLER
    next: ClassVar[tuple[Next, ...]] = (
        Next("Use a registry at a public address"),
        Next("If it is the operator's own registry: name it in allowed_registries of the cells' config"),
    )


class ImageNotFound(DiegoError):
    """The registry or directory has no such image, or hides it from these credentials."""

    code = "image.not_found"
    title = "There is no such image"
    fault = Fault.APP
    elsewhere = False
    next: ClassVar[tuple[Next, ...]] = (
        Next("Correct name, tag or digest in rootfs, or push the image"),
        Next("A private image may need image_username and image_password"),
    )


class ImageUnsupported(DiegoError):
    """The image, or a layer of it, has a form that this release cannot use; the detail names it."""

    code = "image.unsupported"
    title = "The image has a form that is not supported"
    fault = Fault.APP
    elsewhere = False
    next: ClassVar[tuple[Next, ...]] = (Next("Push an OCI or Docker v2 image with layers of gzip, zstd or plain"),)


class ImageHasNoCommand(DiegoError):
    """Neither the definition nor the image says what to execute."""

    code = "image.no_command"
    title = "Nothing says what to execute"
    fault = Fault.APP
    elsewhere = False
    next: ClassVar[tuple[Next, ...]] = (
        Next("Set action.run.path, or build the image with an ENTRYPOINT or CMD"),
    )


class ImagePlatformMissing(DiegoError):
    """The image is not built for the cell's platform; `evidence.platforms` has those it is built for."""

    code = "image.platform_missing"
    title = "The image is not built for this platform"
    fault = Fault.CALLER  # Not the app's: a cell of another platform may run it.
    next: ClassVar[tuple[Next, ...]] = (Next("Build the image for the platform that the detail names"),)


class ImageCorrupt(DiegoError):
    """What came is not what was announced: a digest, a size or a document is wrong. Nothing of it was kept."""

    code = "image.corrupt"
    title = "The image is damaged"
    fault = Fault.DEPENDENCY
    elsewhere = False
    next: ClassVar[tuple[Next, ...]] = (
        Next("Push the image again; if it stays damaged, look at what stands between the cell and the registry"),
    )


class RegistryDenied(DiegoError):
    """The registry refused the credentials, or what they may do."""

    code = "registry.denied"
    title = "The registry refused the credentials"
    fault = Fault.APP
    elsewhere = False
    next: ClassVar[tuple[Next, ...]] = (
        Next("Correct image_username and image_password; the account needs the right to pull this image"),
    )


class RegistryRateLimited(DiegoError):
    """The registry gets more requests than it allows this account or address."""

    code = "registry.rate_limited"
    title = "The registry allows no more requests now"
    status = 503
    fault = Fault.DEPENDENCY
    retryable = True
    elsewhere = False
    next: ClassVar[tuple[Next, ...]] = (
        Next("Try again after Retry-After seconds"),
        Next("Use an account with a higher limit, or a mirror near the cells"),
    )


class RegistryUnreachable(DiegoError):
    """No connection to the registry, or it broke: name, address, TLS, or silence."""

    code = "registry.unreachable"
    title = "The registry cannot be reached"
    status = 502
    fault = Fault.DEPENDENCY
    retryable = True
    next: ClassVar[tuple[Next, ...]] = (
        Next("Check the registry's name in rootfs, and that the cell reaches it; `evidence` has the reason"),
        DOCTOR,
    )


class RegistryFailed(DiegoError):
    """The registry answered with a failure of its own, or with something that is not its protocol."""

    code = "registry.failed"
    title = "The registry failed"
    status = 502
    fault = Fault.DEPENDENCY
    retryable = True
    next: ClassVar[tuple[Next, ...]] = (Next("Read the registry's own words in `evidence`, and its log"),)
