// The blocks in which GGUF files hold quantised matrices, on the host: taken apart, put together, decoded,
// encoded. A type is a row of the table in blocks.cpp; autograd/packed.h says how devices hold them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "autograd/tensor.h"

namespace vkflux {

/// What a block holds, whatever its type: values x q - y, with x and y of every 16 or 32 values.
struct QuantBlock {
  std::array<uint8_t, 256> q{};            // numbers; some types count from `zero`
  std::array<uint8_t, 16> scale{}, min{};  // of 16 or 32 values in order, as the file has them
  uint16_t d = 0, dmin = 0;                // f16
};

/// How x and y of some values follow from the rest of the block.
enum class BlockScales {
  d,               // x = d, y = 0
  d_and_min,       // x = d, y = -dmin
  six_bit,         // of 32: x = d scale, y = dmin min
  four_bit,        // of 16: likewise
  six_bit_signed,  // of 16: x = d (scale - 32), y = 0
  int8,            // of 16: x = d scale, y = 0
};

struct BlockType {
  DType type;
  int values, bytes;        // of a block
  int low_bits, high_bits;  // of a number, in the two planes of a device's rows
  int zero;                 // the number that stands for zero
  BlockScales scales;
  void (*split)(const std::byte* file, QuantBlock& out);
  void (*join)(const QuantBlock& block, std::byte* file);
  void (*encode)(const float* values, QuantBlock& out);
};

/// Of every packed type but fp8; Error internal for others.
const BlockType& block_type(DType t);
/// Values of a block, exactly as the formats' reference decodes them.
void values_of(const BlockType& t, const QuantBlock& b, float* out);

/// Whole blocks as in files, or fp8 bytes, to values. `bytes` and `out` must fit each other.
void decode_blocks(DType t, std::span<const std::byte> bytes, std::span<float> out);
/// Values to whole blocks, or fp8 bytes. Q4_0 to Q8_0: the bytes that ggml's reference makes. K types: least
/// squares over some step widths of each part, then of the block. A block that holds a value that isn't
/// finite gets a scale that isn't.
void encode_blocks(DType t, std::span<const float> values, std::span<std::byte> bytes);
/// The first block whose scale isn't finite, or the first fp8 value that isn't.
std::optional<int64_t> first_not_finite(DType t, std::span<const std::byte> bytes);
/// Bytes that so many values, whole blocks, take in a file.
uint64_t file_bytes(DType t, int64_t values);

// Encoders of the table.
void encode_q4_0(const float* x, QuantBlock& b);
void encode_q4_1(const float* x, QuantBlock& b);
void encode_q5_0(const float* x, QuantBlock& b);
void encode_q5_1(const float* x, QuantBlock& b);
void encode_q8_0(const float* x, QuantBlock& b);
void encode_q2_k(const float* x, QuantBlock& b);
void encode_q3_k(const float* x, QuantBlock& b);
void encode_q4_k(const float* x, QuantBlock& b);
void encode_q5_k(const float* x, QuantBlock& b);
void encode_q6_k(const float* x, QuantBlock& b);

}  // namespace vkflux
