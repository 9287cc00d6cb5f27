"""What can go wrong, as a tree; each leaf has one meaning.

    BoothsamError
    ├── ImageError            a photo that cannot be read, is too large, or an array that is no photo
    ├── PromptError           points, boxes or mask prompts that make no sense for this photo
    │   └── CameraMoved       a photo that does not show the booth of the plate
    ├── NothingFound          a valid question with the answer "no product there"
    ├── OutputError           a result that cannot be written
    ├── ModelError
    │   ├── ModelNotFound     no model of this name or at this path
    │   ├── ManifestError     a manifest that is not one, or of another format
    │   ├── IntegrityError    a file that differs from its recorded sha256
    │   ├── ProofError        a file whose proof failed, or that lacks one
    │   └── EngineError       an engine that cannot be built, or of another GPU or TensorRT
    ├── BackendUnavailable    a backend that is not installed or finds no device
    ├── DeviceError           a GPU that refused: out of memory, or a call that failed
    ├── TensorError           an array of wrong name, shape, dtype, device or model fed to a session
    ├── CheckpointError       a PyTorch file that is no checkpoint of the named architecture
    ├── DownloadError         a download that failed or gave other bytes than expected
    ├── ParityError           an exported model that does not answer what the original answers
    └── OptionError           an option value outside its range

Every message says what was found and what was expected; `hint` carries the command or change that mends it.
"""


class BoothsamError(Exception):
    """Base of every error that boothsam raises on purpose."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class ImageError(BoothsamError, ValueError):
    """A photo that cannot be read, is too large, or an array that is no photo."""


class PromptError(BoothsamError, ValueError):
    """Points, boxes or mask prompts that make no sense for this photo."""


class CameraMoved(PromptError):
    """A photo that does not show the booth of the plate: the camera or the backdrop moved, or it has another shape."""


class NothingFound(BoothsamError):
    """A valid question with the answer "no product there"."""


class OutputError(BoothsamError):
    """A result that cannot be written."""


class OptionError(BoothsamError, ValueError):
    """An option value outside its range."""


class ModelError(BoothsamError):
    """Something is wrong with a model folder."""


class ModelNotFound(ModelError):
    """No model of this name or at this path."""


class ManifestError(ModelError, ValueError):
    """A manifest that is not one, or of another format."""


class IntegrityError(ModelError):
    """A file that differs from its recorded sha256."""


class ProofError(ModelError):
    """A file whose proof failed, or that lacks one its device needs."""


class EngineError(ModelError):
    """A TensorRT engine that cannot be built or loaded: of another GPU or version, damaged, or not what was asked."""


class BackendUnavailable(BoothsamError):
    """A backend that is not installed or finds no device."""


class DeviceError(BoothsamError):
    """A GPU that refused: out of memory, or a call of its library that failed."""


class TensorError(BoothsamError, ValueError):
    """An array of wrong name, shape, dtype, device or model fed to a session."""


class CheckpointError(BoothsamError):
    """A PyTorch file that is no checkpoint of the named architecture."""


class DownloadError(BoothsamError):
    """A download that failed or gave other bytes than expected."""


class ParityError(BoothsamError):
    """An exported model that does not answer what the original answers."""
