// SPDX-License-Identifier: Apache-2.0
// The container: what was written comes back, and no damage goes unnoticed.
#define ZSTD_STATIC_LINKING_ONLY
#include <gtest/gtest.h>
#include <zstd.h>

#include <chrono>

#include "base/checked.h"
#include "converter/zstd_frame.h"
#include "model/model.h"
#include "tests/unit/tiny_model.h"

namespace gptq::test {
namespace {

using base::Failure;
using format::Compression;

// Everything a load looks at, within a small budget. Returns GPTQ_OK or the failure's status.
gptq_status load(std::span<const std::byte> file, std::string* message = nullptr) {
  base::HostMemory memory(nullptr, nullptr, nullptr, 4 << 20);
  gptq_status status = GPTQ_OK;
  try {
    const base::MemorySource source(file);
    base::Pool pool(1, nullptr, nullptr, &memory);
    model::Model model(source, {}, pool, &memory);
  } catch (const Failure& failure) {
    status = failure.detail.status;
    if (message) *message = failure.detail.message;
  }
  EXPECT_EQ(memory.bytes(), 0u);
  return status;
}

bool refused(gptq_status status) {
  return status == GPTQ_E_FORMAT || status == GPTQ_E_CHECKSUM || status == GPTQ_E_UNSUPPORTED;
}

template <class T>
Bytes with_value(Bytes file, size_t at, T value) {
  std::memcpy(file.data() + at, &value, sizeof value);
  return file;
}

TEST(Format, TinyModelLoads) {
  std::string message;
  for (Compression compression : {Compression::stored, Compression::zstd})
    EXPECT_EQ(load(TinyModel().build(compression), &message), GPTQ_OK) << message;
}

TEST(Format, SameInputSameBytes) {
  EXPECT_EQ(TinyModel().build(Compression::zstd), TinyModel().build(Compression::zstd));
}

// Runs of all sizes around the chunk size, random (stays stored) and repetitive (compressed).
TEST(Format, RoundTripOfManyChunks) {
  const TemporaryPath path("roundtrip.gptq");
  std::vector<Bytes> runs;
  TinyModel tiny;
  std::minstd_rand random(7);
  {
    format::Writer writer(path.get(), base::AtomicFile::IfExists::refuse, convert::zstd_frame);
    for (size_t size : {1u, 63u, 64u, 65u, 4194303u, 4194304u, 4194305u, 9000000u}) {
      for (unsigned mask : {0xFFu, 0x11u}) {
        Bytes& run = runs.emplace_back(size);
        for (std::byte& b : run) b = static_cast<std::byte>(random() >> 7 & mask);
        auto t = std::make_unique<fb::TensorT>();
        t->name = "t" + std::to_string(100 + runs.size());
        t->parts.push_back(writer.add(fb::Role::codes, run, Compression::zstd));
        tiny.manifest.tensors.push_back(std::move(t));
      }
    }
    writer.finish(tiny.manifest);
  }
  const base::FileSource file(path.get());
  auto* memory = std::pmr::get_default_resource();
  const format::Reader reader(file, memory);
  for (size_t i = 0; i < runs.size(); ++i) {
    const fb::Tensor* tensor = reader.find("t" + std::to_string(101 + i));
    ASSERT_TRUE(tensor);
    const fb::Part& part = *tensor->parts()->Get(0);
    Bytes back(part.bytes());
    reader.read_part(part, back, memory);
    EXPECT_EQ(back, runs[i]);
    const fb::Chunk& first = *reader.manifest().chunks()->Get(part.first_chunk());
    EXPECT_EQ(first.stored() < first.raw(), i % 2 == 1 && runs[i].size() > 100) << runs[i].size();
  }
  EXPECT_EQ(reader.find("t1"), nullptr);
  EXPECT_EQ(reader.find(""), nullptr);
  EXPECT_EQ(reader.find("zzz"), nullptr);
}

TEST(Format, EveryTruncationIsRefused) {
  const Bytes file = TinyModel().build(Compression::zstd);
  for (size_t size = 0; size < file.size(); ++size) ASSERT_TRUE(refused(load(std::span(file).first(size)))) << size;
  Bytes longer = file;
  longer.push_back(std::byte{0});
  EXPECT_EQ(load(longer), GPTQ_E_FORMAT);
}

TEST(Format, EveryDamagedByteIsNoticed) {
  for (Compression compression : {Compression::stored, Compression::zstd}) {
    Bytes file = TinyModel().build(compression);
    const bool stored = compression == Compression::stored;
    for (size_t at = 0; at < file.size(); ++at) {
      for (unsigned pattern : stored ? std::vector{0x01u, 0x80u, 0xFFu} : std::vector{0x10u}) {
        file[at] ^= static_cast<std::byte>(pattern);
        ASSERT_TRUE(refused(load(file))) << "byte " << at << " pattern " << pattern;
        file[at] ^= static_cast<std::byte>(pattern);
      }
    }
  }
}

TEST(Format, Versions) {
  const Bytes file = TinyModel().build();
  Bytes minor = with_value<uint32_t>(file, 12, 7), major = with_value<uint32_t>(file, 8, 9);
  rehash(minor);
  rehash(major);
  std::string message;
  EXPECT_EQ(load(minor), GPTQ_OK);
  EXPECT_EQ(load(major, &message), GPTQ_E_UNSUPPORTED);
  EXPECT_NE(message.find("9.0"), message.npos) << message;
  EXPECT_EQ(load(with_value<uint64_t>(file, 0, 0)), GPTQ_E_FORMAT);
}

TEST(Format, UnknownRequiredFeatureIsNamed) {
  TinyModel tiny;
  tiny.manifest.required_features = {"telepathy"};
  std::string message;
  EXPECT_EQ(load(tiny.build(), &message), GPTQ_E_UNSUPPORTED);
  EXPECT_NE(message.find("telepathy"), message.npos);
}

constexpr uint64_t edges[] = {0, 1, 2, 63, 64, 127, 128, 255, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x100000000,
                              0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFC0, 0xFFFFFFFFFFFFFFFF};

TEST(Format, HeaderFieldsWithRightHash) {
  const Bytes file = TinyModel().build();
  for (size_t at = 16; at < 56; at += 8) {
    for (uint64_t value : edges) {
      Bytes changed = with_value(file, at, value);
      rehash(changed);
      EXPECT_TRUE(changed == file || refused(load(changed))) << "header byte " << at << " = " << value;
    }
  }
}

// Every word of the manifest, so every field, offset and length in it. A load that passes must be harmless, which sanitizers judge.
TEST(Format, ManifestWordsWithRightHash) {
  const Bytes file = TinyModel().build();
  uint64_t begin, n_loaded = 0, n_refused = 0;
  std::memcpy(&begin, file.data() + 16, sizeof begin);
  for (size_t at = begin; at + 8 <= file.size(); at += 2) {
    for (uint64_t value : edges) {
      Bytes changed = value > 0xFFFFFFFF ? with_value(file, at, value)
                      : value > 0xFFFF   ? with_value(file, at, static_cast<uint32_t>(value))
                                         : with_value(file, at, static_cast<uint16_t>(value));
      rehash(changed);
      const gptq_status status = load(changed);
      ASSERT_TRUE(status == GPTQ_OK || refused(status)) << "byte " << at << " = " << value << ": " << status;
      (status == GPTQ_OK ? n_loaded : n_refused) += 1;
    }
  }
  EXPECT_GT(n_refused, n_loaded);
}

// ---- chunks and parts that lie, with right hashes ----

// As the writer does it, but from given stored bytes and with the raw sizes claimed.
struct StoredChunk {
  Bytes stored;
  uint32_t raw;
};

Bytes assemble(fb::ManifestT& manifest, const std::vector<StoredChunk>& chunks) {
  Bytes file(sizeof(format::Header));
  manifest.chunks.clear();
  for (const StoredChunk& chunk : chunks) {
    Bytes padded = chunk.stored;
    padded.resize(base::round_up(padded.size(), 64));
    manifest.chunks.emplace_back(file.size(), format::hash_bytes(padded), static_cast<uint32_t>(chunk.stored.size()), chunk.raw);
    file.insert(file.end(), padded.begin(), padded.end());
  }
  flatbuffers::FlatBufferBuilder builder;
  fb::FinishManifestBuffer(builder, fb::Manifest::Pack(builder, &manifest));
  format::Header header{};
  std::memcpy(header.magic, format::header_magic, 8);
  header.major = 1;
  header.manifest_offset = file.size();
  header.manifest_size = builder.GetSize();
  header.file_size = file.size() + builder.GetSize();
  std::memcpy(file.data(), &header, sizeof header);
  const auto bytes = std::as_bytes(std::span(builder.GetBufferPointer(), builder.GetSize()));
  file.insert(file.end(), bytes.begin(), bytes.end());
  rehash(file);
  return file;
}

std::vector<StoredChunk> chunks_of(const TinyModel& tiny, const Bytes& file) {
  std::vector<StoredChunk> out;
  for (const fb::Chunk& c : tiny.manifest.chunks) {
    const auto begin = file.begin() + static_cast<ptrdiff_t>(c.offset());
    out.push_back({Bytes(begin, begin + c.stored()), c.raw()});
  }
  return out;
}

Bytes frame_of(const Bytes& raw, bool content_size = true) {
  Bytes out(ZSTD_compressBound(raw.size()));
  ZSTD_CCtx* context = ZSTD_createCCtx();
  ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, content_size);
  out.resize(ZSTD_compress2(context, out.data(), out.size(), raw.data(), raw.size()));
  ZSTD_freeCCtx(context);
  return out;
}

Bytes joined(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

Bytes from_words(std::initializer_list<int> values) {
  Bytes out;
  for (int v : values) out.push_back(static_cast<std::byte>(v));
  return out;
}

TEST(Format, ZstdFramesThatLie) {
  TinyModel tiny;
  const Bytes file = tiny.build();
  const std::vector<StoredChunk> good = chunks_of(tiny, file);
  ASSERT_EQ(load(assemble(tiny.manifest, good)), GPTQ_OK);
  const uint32_t raw = good[0].raw;  // 1,280 bytes of embeddings
  const auto try_chunk = [&](const Bytes& stored) {
    std::vector<StoredChunk> chunks = good;
    chunks[0].stored = stored;
    return load(assemble(tiny.manifest, chunks));
  };
  const Bytes zeros(raw), half(raw / 2);
  EXPECT_EQ(try_chunk(frame_of(zeros)), GPTQ_OK);
  EXPECT_EQ(try_chunk(frame_of(zeros, false)), GPTQ_E_FORMAT) << "no content size";
  EXPECT_EQ(try_chunk(frame_of(half)), GPTQ_E_FORMAT) << "too short";
  EXPECT_EQ(try_chunk(frame_of(Bytes(raw + 1))), GPTQ_E_FORMAT) << "too long";
  EXPECT_EQ(try_chunk(frame_of(Bytes(16 << 20))), GPTQ_E_FORMAT) << "bomb";
  EXPECT_EQ(try_chunk(joined(frame_of(half), frame_of(half))), GPTQ_E_FORMAT) << "two frames";
  EXPECT_EQ(try_chunk(joined(frame_of(zeros), from_words({0}))), GPTQ_E_FORMAT) << "trailing byte";
  const Bytes skippable = from_words({0x50, 0x2A, 0x4D, 0x18, 4, 0, 0, 0, 1, 2, 3, 4});
  EXPECT_EQ(try_chunk(skippable), GPTQ_E_FORMAT) << "skippable frame";
  EXPECT_EQ(try_chunk(joined(skippable, frame_of(zeros))), GPTQ_E_FORMAT) << "skippable frame first";
  // A window of 128 MiB and an RLE block of raw bytes: harmless, since nothing is allocated for it.
  EXPECT_EQ(try_chunk(from_words({0x28, 0xB5, 0x2F, 0xFD, 0x40, 0x88, 0x00, 0x04, 0x03, 0x28, 0x00, 0x00})), GPTQ_OK);
  for (size_t i = 0; i < 4; ++i) EXPECT_TRUE(refused(try_chunk(with_value(frame_of(zeros), i, std::byte{0x7F})))) << "magic byte " << i;
}

TEST(Format, PartsThatLie) {
  using Change = std::function<void(TinyModel&, fb::ManifestT&)>;
  const auto part = [](const fb::Part& p, int64_t bytes, int64_t first, int64_t n, fb::Role role) {
    return fb::Part(p.bytes() + bytes, static_cast<uint32_t>(p.first_chunk() + first), static_cast<uint32_t>(p.n_chunks() + n), role);
  };
  const auto change_q = [&](int64_t bytes, int64_t first, int64_t n) -> Change {
    return [=](TinyModel& tiny, fb::ManifestT&) {
      fb::Part& p = tiny.tensor("layers.0.q").parts[0];
      p = part(p, bytes, first, n, p.role());
    };
  };
  const std::pair<const char*, Change> cases[] = {
      {"bytes + 1", change_q(1, 0, 0)},
      {"bytes - 1", change_q(-1, 0, 0)},
      {"chunk of another tensor", change_q(0, -1, 0)},
      {"no chunk", change_q(0, 0, -1)},
      {"a chunk more", change_q(0, 0, 1)},
      {"first beyond the end", change_q(0, 1000, 0)},
      {"first + n overflows", change_q(0, 0xFFFFFF00, 0x1000)},
      {"roles swapped", [](TinyModel& tiny, fb::ManifestT&) { auto& p = tiny.tensor("layers.0.q").parts; std::swap(p[0], p[1]); }},
      {"a part dropped", [](TinyModel& tiny, fb::ManifestT&) { tiny.tensor("layers.0.q").parts.resize(1); }},
      {"a role doubled", [](TinyModel& tiny, fb::ManifestT&) { auto& p = tiny.tensor("layers.0.q").parts; p.push_back(p.back()); }},
      {"unknown role", [=](TinyModel& tiny, fb::ManifestT&) {
         auto& p = tiny.tensor("layers.0.q").parts[2];
         p = part(p, 0, 0, 0, static_cast<fb::Role>(9));
       }},
      {"name doubled", [](TinyModel& tiny, fb::ManifestT&) { tiny.tensor("layers.0.q").name = "layers.0.k"; }},
      {"name empty", [](TinyModel& tiny, fb::ManifestT&) { tiny.tensor("layers.0.q").name = ""; }},
      {"name too long", [](TinyModel& tiny, fb::ManifestT&) { tiny.tensor("layers.0.q").name = std::string(513, 'x'); }},
      {"tensor missing", [](TinyModel& tiny, fb::ManifestT&) { tiny.tensor("layers.0.q").name = "layers.0.qq"; }},
      {"kind unknown", [](TinyModel& tiny, fb::ManifestT&) { tiny.tensor("layers.0.q").kind = 7; }},
      {"vector of kind q4", [](TinyModel& tiny, fb::ManifestT&) { tiny.tensor("final_norm").kind = 5; }},
      {"vector of kind f16", [](TinyModel& tiny, fb::ManifestT&) { tiny.tensor("final_norm").kind = 1; }},
      {"n", [](TinyModel& tiny, fb::ManifestT&) { tiny.tensor("layers.0.q").n = 31; }},
      {"k", [](TinyModel& tiny, fb::ManifestT&) { tiny.tensor("layers.0.q").k = 33; }},
      {"k_padded not a multiple of 64", [](TinyModel& tiny, fb::ManifestT&) { tiny.tensor("layers.0.q").k_padded = 32; }},
      {"k_padded without perm", [](TinyModel& tiny, fb::ManifestT&) { tiny.tensor("layers.0.k").k_padded = 128; }},
      {"k_padded enormous", [](TinyModel& tiny, fb::ManifestT&) { tiny.tensor("layers.0.q").k_padded = 0xFFFFFFC0; }},
      {"group 0", [](TinyModel& tiny, fb::ManifestT&) { tiny.tensor("layers.0.q").group = 0; }},
      {"group 8", [](TinyModel& tiny, fb::ManifestT&) { tiny.tensor("layers.0.q").group = 8; }},
      {"group enormous", [](TinyModel& tiny, fb::ManifestT&) { tiny.tensor("layers.0.q").group = 0xFFFFFFF0; }},
      {"scales_f32", [](TinyModel& tiny, fb::ManifestT&) { tiny.tensor("layers.0.q").scales_f32 = true; }},
      {"float with a group", [](TinyModel& tiny, fb::ManifestT&) { tiny.tensor("embed").group = 16; }},
      {"float with padding", [](TinyModel& tiny, fb::ManifestT&) { tiny.tensor("embed").k_padded = 64; }},
  };
  for (const auto& lie : cases) {
    TinyModel tiny;
    EXPECT_TRUE(refused(load(tiny.build(Compression::stored, [&](fb::ManifestT& m) { lie.second(tiny, m); })))) << lie.first;
  }
}

// Values that only the data shows.
TEST(Format, ValuesThatLie) {
  const auto with_data = [](std::string_view tensor, size_t part, size_t at, auto value) {
    TinyModel tiny;
    std::vector<StoredChunk> chunks = chunks_of(tiny, tiny.build());
    Bytes& stored = chunks[tiny.tensor(tensor).parts[part].first_chunk()].stored;
    stored = with_value(stored, at, value);
    return load(assemble(tiny.manifest, chunks));
  };
  EXPECT_EQ(with_data("layers.0.q", 2, 0, int32_t{31}), GPTQ_OK);
  EXPECT_EQ(with_data("layers.0.q", 2, 0, int32_t{-1}), GPTQ_OK);
  EXPECT_EQ(with_data("layers.0.q", 2, 0, int32_t{32}), GPTQ_E_FORMAT);
  EXPECT_EQ(with_data("layers.0.q", 2, 252, int32_t{-2}), GPTQ_E_FORMAT);
  EXPECT_EQ(with_data("layers.0.q", 2, 128, int32_t{INT32_MIN}), GPTQ_E_FORMAT);
  EXPECT_EQ(with_data("layers.0.q", 1, 2, uint16_t{0x7C00}), GPTQ_E_FORMAT);
  EXPECT_EQ(with_data("layers.0.q", 1, 2, uint16_t{0xFE01}), GPTQ_E_FORMAT);
  EXPECT_EQ(with_data("embed", 0, 100, uint16_t{0x7C01}), GPTQ_E_FORMAT);
  EXPECT_EQ(with_data("layers.0.gate", 0, 100, uint16_t{0x7F80}), GPTQ_E_FORMAT);
  EXPECT_EQ(with_data("layers.0.gate", 0, 100, uint16_t{0x7C00}), GPTQ_OK);
  EXPECT_EQ(with_data("final_norm", 0, 4, uint32_t{0x7FC00000}), GPTQ_E_FORMAT);
}

TEST(Format, TensorTableOfFullSizeIsLinear) {
  TinyModel tiny;
  tiny.build();
  fb::ManifestT& m = tiny.manifest;
  m.tensors.clear();
  m.chunks.clear();
  for (int i = 0; i < 262144; ++i) {
    m.tensors.push_back(std::make_unique<fb::TensorT>());
    m.tensors.back()->name = std::to_string(1000000 + i);
  }
  Bytes file = assemble(m, {});
  const auto start = std::chrono::steady_clock::now();
  base::HostMemory memory(nullptr, nullptr, nullptr, 0);
  const base::MemorySource source(file);
  EXPECT_NO_THROW({
    const format::Reader reader(source, &memory);
    EXPECT_TRUE(reader.find("1262143"));
  });
  EXPECT_LT(memory.peak(), file.size() + (1 << 20));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
}

}  // namespace
}  // namespace gptq::test
