# SPDX-License-Identifier: Apache-2.0
# Builds the smallest program against the package; it says how it is used, with status 2, where it gets no model.
import subprocess
from pathlib import Path

from conan import ConanFile
from conan.tools.build import can_run
from conan.tools.cmake import CMake, cmake_layout


class GptqTest(ConanFile):
  settings = "os", "arch", "compiler", "build_type"
  generators = "CMakeDeps", "CMakeToolchain"

  def requirements(self):
    self.requires(self.tested_reference_str)

  def layout(self):
    cmake_layout(self)

  def build(self):
    cmake = CMake(self)
    cmake.configure()
    cmake.build()

  def test(self):
    if can_run(self):
      assert subprocess.run([Path(self.cpp.build.bindir) / "hello"], stderr=subprocess.DEVNULL).returncode == 2
