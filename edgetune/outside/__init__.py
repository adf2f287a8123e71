"""What starts from a file instead of a recipe: quantizing a model that was not trained here, checking a bundle again.

`filerun.FileRun` is a run whose fp32 file comes from a user's ONNX file; everything behind it is the straight line. `reading`
says what a file is, `given` what its user says of it, `batch` and `contract` bring it into our form, `trial` runs it on
labelled images, `importing` is the stage made of them. `labelled` holds images and model to the same classes, also for
`checking`, and `fleet` has several devices check at once.
"""

from edgetune.outside.checking import Checked, check_bundle, check_on
from edgetune.outside.filerun import FileRun
from edgetune.outside.given import Given
from edgetune.verify.recheck import Extent

__all__ = ["Checked", "Extent", "FileRun", "Given", "check_bundle", "check_on"]
