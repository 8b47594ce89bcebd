"""Makes /opt/wheels: two versions of one tiny package, for pip to install where there is no package index."""

import base64
import hashlib
import os
import zipfile

FOLDER = "/opt/wheels"
NAME = "pilotlight_sample"

os.makedirs(FOLDER, exist_ok=True)
for version in ("1.0.0", "2.0.0"):
    info = f"{NAME}-{version}.dist-info"
    files = {
        f"{NAME}/__init__.py": f'__version__ = "{version}"\n',
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: pilotlight-sample\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: pilotlight-cluster\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(text)}\n"
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    with zipfile.ZipFile(f"{FOLDER}/{NAME}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            # The date is part of the file: a fixed one, so that the same image has the same hash on every day.
            entry = zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            wheel.writestr(entry, text)
