// SPDX-License-Identifier: Apache-2.0
// What an exported checkpoint has, and which slots of the file each part of it is made of: the layout (layout.h) the
// other way round.
#pragma once
#include <map>
#include <optional>

#include "base/threads.h"
#include "converter/hf/published.h"
#include "converter/safetensors/file.h"
#include "format/container.h"

namespace gptq::convert {

struct ExportPart {
  const model::Slot* slot = nullptr;
  const format::fb::Tensor* tensor = nullptr;
  Piece piece;
};

// A quantized module, or one tensor.
struct ExportItem {
  std::string name;
  std::vector<ExportPart> parts;  // none: dense is all of it
  bool quantized = false, is_head = false, quantizable = false;
  bool undone = false;            // quantized in the file, and of a shape that GPTQ checkpoints cannot have
  uint32_t n = 0, k = 1, slices = 1;  // rows of a slice and their length
  std::vector<uint64_t> shape;
  std::optional<DenseWeight> dense;  // small ones are read when the plan is made
};

class ExportItems {
 public:
  ExportItems(const format::Reader& reader, const Published& published, base::Pool& pool, Dtype dtype)
      : reader_(reader), published_(published), pool_(pool), dtype_(dtype) {}

  void add(const model::Slot& slot, const format::fb::Tensor& tensor);
  void add_dense(std::string name, DenseWeight weight, std::vector<uint64_t> shape);
  // Once all are added: rows and shapes; fails with UNSUPPORTED where slots do not make up a module.
  void finish();
  const std::vector<ExportItem>& all() const { return items_; }

  // Whether readers of GPTQ checkpoints take a matrix of this shape.
  static bool fits_gptq(uint32_t n, uint32_t k);
  // What an unquantized item is written as, and its bytes.
  Dtype dtype_of_item(const ExportItem& item) const;
  DenseWeight assemble(const ExportItem& item) const;
  QuantizedWeight join(const ExportItem& item) const;

 private:
  ExportItem& item_of(const std::string& name);
  void add_matrix(const ExportPart& part);
  void add_vector(const ExportPart& part);
  void finish_weights(ExportItem& item) const;
  void finish_bias(ExportItem& item, const std::string& module) const;
  void add_pieces(const ExportPart& part, const std::vector<float>& values);
  std::vector<float> published_values(const ExportPart& part) const;
  std::vector<uint64_t> vector_shape(const ExportPart& part) const;

  const format::Reader& reader_;
  const Published& published_;
  base::Pool& pool_;
  Dtype dtype_;
  std::vector<ExportItem> items_;
  std::map<std::string, size_t> places_;
  std::map<std::string, std::string> weights_of_;  // of a bias: the item of its module's weights
};

}  // namespace gptq::convert
