# SPDX-License-Identifier: Apache-2.0
# Counts the test cases of Meson's JUnit log: count_results.py LOG STATUS, where STATUS is the exit status of `meson test`.
import sys
import xml.etree.ElementTree as xml

log, status = sys.argv[1], int(sys.argv[2])
passed = failed = skipped = 0
for case in xml.parse(log).iter("testcase"):
  if case.find("failure") is not None or case.find("error") is not None:
    failed += 1
  elif case.find("skipped") is not None or case.get("result") == "skipped" or case.get("status") == "notrun":
    skipped += 1
  else:
    passed += 1
if status and not failed:  # a program that died has no cases of its own
  failed = 1
print(f"{passed} passed, {failed} failed, {skipped} skipped")
