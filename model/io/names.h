// Checkpoints in the wild name the same tensors differently, split them or swap their halves. A NameTable
// says how, as data; NamedTensors is a checkpoint seen under our names. The same table read backwards saves
// in the foreign layout.
#pragma once

#include <map>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "autograd/tensor.h"
#include "model/io/safetensors.h"
#include "model/io/scaled_fp8.h"

namespace vkflux::io {

/// In patterns "{i}" and "{j}" match a number and "{w}" matches "weight" or "bias".
struct NameRule {
  enum class Kind {
    copy,         // the same tensor
    rows,         // part `part` of several that are stacked along rows in order
    swap_halves,  // the two halves of the rows are exchanged
    interleaved,  // in every head of `head` rows, 2m and 2m + 1 are our m and m + head / 2
  };
  std::string foreign, ours;
  Kind kind = Kind::copy;
  int part = 0;
  bool any_size = false;  // of rows: this part may have other rows than part 0
  bool fallback = false;  // only where the file has no tensor of our name
  int64_t head = 0;       // of interleaved
};

struct NameTable {
  std::vector<NameRule> rules;
  std::vector<std::string> prefixes;  // if any tensor starts with one, only those count, without it
  std::vector<std::string>
      ignore;  // patterns of tensors that are no parameters ("*" at the end matches the rest)
};

using NamedShapes = std::vector<std::pair<std::string, std::vector<int64_t>>>;

class NamedTensors {
 public:
  /// Error format when two tensors of the file claim the same place (fused and split forms of one weight,
  /// say).
  NamedTensors(const TensorSource& file, const NameTable& table);

  bool has(const std::string& ours) const { return entries_.count(ours) != 0; }
  /// The assembled shape. Error format when it is missing.
  const std::vector<int64_t>& shape(const std::string& ours) const;
  /// How it is stored; of parts with different types, one that loses little of any of them.
  FileDType dtype(const std::string& ours) const;
  /// Whether the file has a scale for it, or for a part of it: scaled fp8.
  bool scaled(const std::string& ours) const;
  /// A sentence on the tensors whose parts have different types; "" when there are none.
  std::string mixed() const;
  std::vector<std::string> names() const;
  /// Error format where a value isn't finite.
  std::vector<float> read_f32(const std::string& ours) const;
  /// The values from `first` on as `to` (f32, f16 or bf16), as many as fit `out`; Error format likewise.
  void read(const std::string& ours, DType to, uint64_t first, std::span<std::byte> out) const;
  /// Whether all of a tensor is stored in the packed type `as`, in rows of whole blocks: read_packed().
  bool packs(const std::string& ours, DType as) const;
  /// Rows from `row` on as devices hold them (autograd/packed.h), as many as fit `out`, which is whole rows.
  /// Error format where a scale or an fp8 value isn't finite, with the tensor and the block.
  void read_packed(const std::string& ours, DType as, int64_t row, std::span<std::byte> out) const;
  /// Every expected tensor is there with its shape (trailing ones aside), and no other; Error format lists up
  /// to 20 of each fault with the nearest names.
  void check(const NamedShapes& expected) const;
  /// 1 + the largest number in place of {i} of a pattern such as "double_blocks.{i}.", which must have no
  /// gaps; 0: none.
  int64_t count(const std::string& prefix) const;
  const std::string& path() const { return file_.path(); }

 private:
  struct Entry {
    std::map<int, std::string> parts;  // in order: tensors of the file
    std::vector<int64_t> shape;
    std::set<int> any_size;
    bool swap_halves = false;
    int64_t head = 0;  // rows of heads that are stored interleaved; 0: they aren't
    uint64_t numel = 0;
    bool mixed = false;  // parts of different types
  };
  const Entry& entry(const std::string& ours) const;
  void place(const std::string& ours, const std::string& file_name, const NameRule& rule);
  void assemble(const std::string& ours, Entry& e);
  /// A head's rows by way of a buffer, as `stored(first row, rows)` gives them.
  template <class Stored>
  void read_interleaved(const Entry& e, size_t row_bytes, uint64_t at, std::span<std::byte> out,
                        Stored stored) const;
  void read_stacked(const Entry& e, DType to, uint64_t first, std::span<std::byte> out) const;
  void read_stacked_rows(const Entry& e, DType as, int64_t row, std::span<std::byte> out) const;
  void read_values(const TensorInfo& info, DType to, uint64_t first, std::span<std::byte> out) const;

  const TensorSource& file_;
  ScaledFp8 scaled_;
  std::map<std::string, Entry> entries_;
};

/// A tensor of the foreign layout that is made of rows [row, row + rows) of one of ours.
struct ForeignPart {
  std::string name;
  int64_t row = 0, rows = 0;
  bool swap_halves = false;  // the two halves of the rows are exchanged
  int64_t head = 0;          // rows of heads that become interleaved
};
/// What one of our tensors becomes in the foreign layout. A tensor that the table splits along rows becomes
/// several: `rows` gives their sizes (equal thirds when empty). Without a rule the name stays.
std::vector<ForeignPart> foreign_parts(const std::string& ours, const std::vector<int64_t>& shape,
                                       const NameTable& table, const std::vector<int64_t>& rows = {});
/// One of our tensors as the foreign layout stores it, f32 values in, encoded as dtype.
std::vector<TensorData> to_foreign(const std::string& ours, const std::vector<int64_t>& shape,
                                   std::vector<float> values, const NameTable& table, FileDType dtype,
                                   const std::vector<int64_t>& rows = {});

/// What a foreign layout calls one of our tensors, or a part of it.
struct ForeignName {
  std::string name;
  NameRule::Kind kind = NameRule::Kind::copy;
  int part = 0;  // of rows
};
/// All that the table's rules give for it, besides our own name.
std::vector<ForeignName> foreign_names(const std::string& ours, const NameTable& table);
/// `foreign` with the numbers that `text` has where `pattern` has {i} and {j}; "" when it doesn't match.
std::string rename(const std::string& text, const std::string& pattern, const std::string& foreign);

const NameTable& flux1_names();       // BFL names; diffusers; ComfyUI prefix
const NameTable& flux2_names();       // likewise
NameTable vae_names(int64_t levels);  // BFL names; diffusers
const NameTable& clip_names();
const NameTable& t5_names();
/// Of a decoder's own file (model/text/decoder.h): whatever comes before its names, transformers' names with
/// and without "model.", and those of GGUF files, whose q and k are interleaved in the architectures llama
/// and mistral3. What isn't the text model's is ignored, and so are layers from `layers` on (-1: none), with
/// the final norm that follows them.
NameTable decoder_names(const TensorSource& file, int64_t layers = -1);
/// For writing: GGUF names of an architecture ("qwen3", "mistral3").
NameTable decoder_gguf_names(const std::string& architecture, int64_t head);

}  // namespace vkflux::io
