# SPDX-License-Identifier: Apache-2.0
# zip_folder.py FOLDER FILE.zip: the files of a folder, by name, at the time SOURCE_DATE_EPOCH.
import os
import sys
import time
import zipfile

folder, target = sys.argv[1:]
when = time.gmtime(int(os.environ["SOURCE_DATE_EPOCH"]))[:6]
paths = sorted(os.path.join(at, name) for at, _, names in os.walk(folder) for name in names)
with zipfile.ZipFile(target, "w") as archive:
  for path in paths:
    entry = zipfile.ZipInfo(path.replace(os.sep, "/"), when)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.create_system = 0  # no rights: Windows has others
    with open(path, "rb") as file:
      archive.writestr(entry, file.read(), compresslevel=9)
