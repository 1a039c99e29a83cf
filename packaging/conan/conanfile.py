# SPDX-License-Identifier: Apache-2.0
# A Conan 2 recipe, from this checkout: conan create packaging/conan --build=missing
from pathlib import Path

from conan import ConanFile
from conan.tools.build import check_min_cppstd
from conan.tools.files import copy
from conan.tools.gnu import PkgConfigDeps
from conan.tools.meson import Meson, MesonToolchain


class Gptq(ConanFile):
  name = "gptq"
  version = "0.1.0"
  license = "Apache-2.0"
  description = "Embedded inference runtime for GPTQ-quantized language models"
  topics = ("llm", "inference", "quantization")
  package_type = "library"
  settings = "os", "arch", "compiler", "build_type"
  options = {"shared": [True, False], "fPIC": [True, False]}
  default_options = {"shared": False, "fPIC": True}
  implements = ["auto_shared_fpic"]

  def validate(self):
    check_min_cppstd(self, 20)

  def export_sources(self):
    root = Path(self.recipe_folder).parent.parent
    for part in ("meson.build", "meson_options.txt", "LICENSE", "include/*", "runtime/*", "kernels/*", "examples/*", "tests/*", "packaging/*", "bindings/cpp/*"):
      copy(self, part, root, self.export_sources_folder)

  def requirements(self):
    self.requires("zstd/[>=1.4 <2]")
    self.requires("xxhash/[>=0.8 <1]")
    self.requires("flatbuffers/[>=2 <26]")

  def build_requirements(self):
    self.tool_requires("meson/[>=1.0 <2]")
    self.tool_requires("pkgconf/[>=2 <3]")
    self.tool_requires("flatbuffers/<host_version>")

  def generate(self):
    toolchain = MesonToolchain(self)
    for part in ("converter", "tests", "cuda"):
      toolchain.project_options[part] = "disabled"
    toolchain.generate()
    PkgConfigDeps(self).generate()

  def build(self):
    meson = Meson(self)
    meson.configure()
    meson.build()

  def package(self):
    copy(self, "LICENSE", self.source_folder, Path(self.package_folder) / "licenses")
    Meson(self).install()

  def package_info(self):
    self.cpp_info.libs = ["gptq"]
    self.cpp_info.set_property("cmake_file_name", "gptq")
    self.cpp_info.set_property("cmake_target_name", "gptq::gptq")
    self.cpp_info.set_property("pkg_config_name", "gptq")
    if self.settings.os == "Linux":
      self.cpp_info.system_libs = ["m", "pthread", "dl"]
    elif self.settings.os == "Windows":
      self.cpp_info.system_libs = ["bcrypt", "synchronization"]
      if self.options.shared:
        self.cpp_info.defines = ["GPTQ_SHARED"]
