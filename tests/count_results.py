# SPDX-License-Identifier: Apache-2.0
# Counts the test cases of Meson's JUnit log, and names those that failed: count_results.py LOG STATUS, where STATUS is the exit status of
# `meson test`.
import sys
import xml.etree.ElementTree as xml

log, status = sys.argv[1], int(sys.argv[2])
passed = failed = skipped = 0
for case in xml.parse(log).iter("testcase"):
  fault = next((f for f in (case.find("failure"), case.find("error")) if f is not None), None)
  if fault is not None:
    failed += 1
    print(f"FAILED {case.get('classname')}.{case.get('name')}: {(fault.get('message') or fault.text or '')[:2000]}")
  elif case.find("skipped") is not None or case.get("result") == "skipped" or case.get("status") == "notrun":
    skipped += 1
  else:
    passed += 1
if status and not failed:
  failed = 1
  print("FAILED: a test program died or was stopped; `meson test` names it above")
print(f"{passed} passed, {failed} failed, {skipped} skipped")
