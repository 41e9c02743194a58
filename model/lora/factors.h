// The numbers of an adapter: whatever its method, a change of a range of a module's weight.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace vkflux::lora {

class File;
struct Adapter;

/// A matrix of f32 values, row after row.
struct Matrix {
  int64_t rows = 0, columns = 0;
  std::vector<float> values;

  bool empty() const { return values.empty(); }
};
Matrix product(const Matrix& a, const Matrix& b);  // [m, k] [k, n]
Matrix transposed(const Matrix& a);

/// What an adapter adds, at strength 1, to rows [row, row + rows) of a weight [out, in]. The first that is
/// there of up down, outer x inner (a Kronecker product) and dense.
struct Change {
  int64_t row = 0, rows = 0;
  Matrix down, up;               // [r, in], [rows, r]; the scale is in `up`
  Matrix outer, inner;           // the scale is in `outer`
  Matrix dense;                  // [rows, in]
  std::vector<float> bias;       // [rows], or empty
  std::vector<float> magnitude;  // of DoRA, [rows], or [in] where by_column is set; or empty
  bool by_column = false;
  std::vector<float> norm;        // what is added to the scales of a norm
  std::vector<float> norm_value;  // what replaces them

  bool changes_weight() const { return !up.empty() || !outer.empty() || !dense.empty(); }
};

/// Why the adapter can't change its module (shapes of another model), or "". Error format or unsupported for
/// what fits no model at all. Reads nothing but numbers of one element.
std::string check_factors(const File& file, const Adapter& adapter);

/// The change of an adapter that check_factors() let through. `most_values`: factors of a product that is
/// composed of factors (LoHa, LoKr) are kept where they are smaller than it.
Change read_change(const File& file, const Adapter& adapter);

/// The whole matrix that is added to the rows.
Matrix dense_change(const Change& change, int64_t columns);

}  // namespace vkflux::lora
