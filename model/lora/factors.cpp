#include "model/lora/factors.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "model/io/file.h"
#include "model/lora/file.h"
#include "vk/error.h"

namespace vkflux::lora {
namespace {

using Dims = std::vector<int64_t>;

std::string str(const Dims& d) {
  return fmt::format("[{}]", fmt::join(d, ", "));
}

/// One adapter's tensors while they are checked and read.
class Reader {
 public:
  Reader(const File& file, const Adapter& adapter) : file_(file), a_(adapter) {}

  bool has(Role r) const { return a_.has(r); }
  std::string text(Role r) const { return fmt::format("{} {}", io::shown(a_.tensors.at(r)), str(dims(r))); }
  Dims dims(Role r) const { return file_.shape(a_.tensors.at(r)); }
  Matrix matrix(Role r) const {
    const Dims d = dims(r);
    return {d[0], d[1], file_.values(a_.tensors.at(r))};
  }
  std::vector<float> values(Role r) const { return file_.values(a_.tensors.at(r)); }

  [[noreturn]] void refuse(const std::string& why) const { throw Error(ErrorCode::format, why); }
  void need(Role r, Role because) const {
    if (has(r) || !has(because)) return;
    refuse(fmt::format("{} has no counterpart: half of a pair is missing", text(because)));
  }
  void pair(Role a, Role b) const {
    need(a, b);
    need(b, a);
  }
  /// Has two dimensions, none of them empty.
  void matrix_shape(Role r) const {
    if (!has(r)) return;
    const Dims d = dims(r);
    if (d.size() != 2 || d[0] <= 0 || d[1] <= 0)
      refuse(text(r) + ": a matrix with at least one row and column is expected");
  }
  /// What one factor's dimension must be equal to another's.
  void joined(Role a, int da, Role b, int db) const {
    if (dims(a)[static_cast<size_t>(da)] != dims(b)[static_cast<size_t>(db)])
      refuse(fmt::format("{} and {} don't fit each other: their ranks differ", text(a), text(b)));
  }

 private:
  const File& file_;
  const Adapter& a_;
};

/// The rows and columns of what an adapter adds, and the names to blame.
struct Extent {
  int64_t rows, columns;
  std::string what;
};

std::optional<Extent> lora_extent(const Reader& r) {
  r.pair(Role::down, Role::up);
  r.need(Role::up, Role::up_bias);
  if (!r.has(Role::down)) return {};
  if (r.has(Role::core))
    throw Error(ErrorCode::unsupported,
                r.text(Role::core) + " belongs to a convolution, and the module is none");
  r.matrix_shape(Role::down);
  r.matrix_shape(Role::up);
  r.joined(Role::down, 0, Role::up, 1);
  return Extent{r.dims(Role::up)[0], r.dims(Role::down)[1],
                r.text(Role::up) + " times " + r.text(Role::down)};
}

std::optional<Extent> loha_extent(const Reader& r) {
  const Role all[] = {Role::w1_a, Role::w1_b, Role::w2_a, Role::w2_b};
  for (const Role a : all)
    for (const Role b : all) r.need(a, b);
  r.pair(Role::t1, Role::t2);
  r.need(Role::w1_a, Role::t1);
  if (!r.has(Role::w1_a)) return {};
  for (const Role a : all) r.matrix_shape(a);
  const bool cored = r.has(Role::t1);
  for (const auto& [a, b, t] :
       {std::tuple{Role::w1_a, Role::w1_b, Role::t1}, std::tuple{Role::w2_a, Role::w2_b, Role::t2}}) {
    if (!cored) {
      r.joined(a, 1, b, 0);
      continue;
    }
    r.matrix_shape(t);
    r.joined(t, 1, b, 0);
    r.joined(t, 0, a, 0);
  }
  r.joined(Role::w1_a, cored ? 1 : 0, Role::w2_a, cored ? 1 : 0);
  r.joined(Role::w1_b, 1, Role::w2_b, 1);
  return Extent{r.dims(Role::w1_a)[cored ? 1 : 0], r.dims(Role::w1_b)[1],
                r.text(Role::w1_a) + " and " + r.text(Role::w1_b)};
}

std::optional<Extent> lokr_extent(const Reader& r) {
  r.pair(Role::k1_a, Role::k1_b);
  r.pair(Role::k2_a, Role::k2_b);
  r.need(Role::k2_a, Role::kt2);
  const bool first = r.has(Role::k1) || r.has(Role::k1_a), second = r.has(Role::k2) || r.has(Role::k2_a);
  if (!first && !second) return {};
  if (!first || !second)
    r.refuse(r.text(first ? (r.has(Role::k1) ? Role::k1 : Role::k1_a)
                          : (r.has(Role::k2) ? Role::k2 : Role::k2_a)) +
             " has no counterpart: one factor of the Kronecker product is missing");
  for (const auto& [whole, a] : {std::pair{Role::k1, Role::k1_a}, std::pair{Role::k2, Role::k2_a}}) {
    if (r.has(whole) && r.has(a))
      r.refuse(fmt::format("{} and {} are the same factor: which is meant?", r.text(whole), r.text(a)));
  }
  for (const Role f : {Role::k1, Role::k1_a, Role::k1_b, Role::k2, Role::k2_a, Role::k2_b, Role::kt2})
    r.matrix_shape(f);
  const auto extent = [&](Role whole, Role a, Role b, bool cored) {
    if (r.has(whole)) return std::pair{r.dims(whole)[0], r.dims(whole)[1]};
    if (cored) {
      r.joined(Role::kt2, 0, a, 0);
      r.joined(Role::kt2, 1, b, 0);
    } else {
      r.joined(a, 1, b, 0);
    }
    return std::pair{r.dims(a)[cored ? 1 : 0], r.dims(b)[1]};
  };
  const auto [o1, i1] = extent(Role::k1, Role::k1_a, Role::k1_b, false);
  const auto [o2, i2] = extent(Role::k2, Role::k2_a, Role::k2_b, r.has(Role::kt2));
  Extent e{0, 0,
           r.text(r.has(Role::k1) ? Role::k1 : Role::k1_a) + " and " +
               r.text(r.has(Role::k2) ? Role::k2 : Role::k2_a)};
  if (__builtin_mul_overflow(o1, o2, &e.rows) || __builtin_mul_overflow(i1, i2, &e.columns))
    r.refuse(e.what + ": their product's size overflows");
  return e;
}

std::optional<Extent> diff_extent(const Reader& r) {
  if (!r.has(Role::diff)) return {};
  r.matrix_shape(Role::diff);
  return Extent{r.dims(Role::diff)[0], r.dims(Role::diff)[1], r.text(Role::diff)};
}

std::string check_norm(const Reader& r, const Adapter& a) {
  const Module& m = a.place.target();
  for (const auto& [role, name] : a.tensors) {
    if (role != Role::diff && role != Role::diff_bias && role != Role::value)
      return fmt::format("{} is a norm, which has no matrix", a.place.module);
    const Shape& want = role == Role::diff_bias ? m.bias : m.weight;
    const Dims d = r.dims(role);
    if (want.rank() != 1 || d != Dims{want[0]})
      return fmt::format("it is {}, {} has {}", str(d), a.place.module, want.str());
  }
  if (r.has(Role::value) && r.has(Role::diff))
    r.refuse(r.text(Role::value) + " and " + r.text(Role::diff) + " both change one norm");
  return "";
}

std::string vector_misfit(const Reader& r, Role role, int64_t n) {
  if (!r.has(role) || r.dims(role) == Dims{n}) return "";
  return fmt::format("{}: {} values are expected", r.text(role), n);
}

void check_alpha(const File& file, const Reader& r) {
  if (!r.has(Role::alpha)) return;
  int64_t n = 1;
  for (const int64_t d : r.dims(Role::alpha)) n *= d == 1 ? 1 : 0;
  if (n != 1) r.refuse(r.text(Role::alpha) + ": one number is expected");
  (void)file;
  r.values(Role::alpha);  // finite
}

std::string check_magnitude(const Reader& r, int64_t rows, int64_t columns) {
  if (!r.has(Role::magnitude)) return "";
  const Dims d = r.dims(Role::magnitude);
  if (d == Dims{rows} || d == Dims{rows, 1} || d == Dims{1, columns}) return "";
  return fmt::format("{}: [{}], [{}, 1] or [1, {}] is expected", r.text(Role::magnitude), rows, rows,
                     columns);
}

void swap_halves(std::vector<float>& v) {
  std::rotate(v.begin(), v.begin() + static_cast<ptrdiff_t>(v.size() / 2), v.end());
}

void multiply(Matrix& m, double factor) {
  for (float& v : m.values) v = static_cast<float>(static_cast<double>(v) * factor);
}

/// Factors of the Hadamard product of two products: ranks multiply. a1[m, r1] b1[r1, n] o a2[m, r2] b2[r2,
/// n].
void hadamard(const Matrix& a1, const Matrix& b1, const Matrix& a2, const Matrix& b2, Change& c) {
  const int64_t rank = a1.columns * a2.columns;
  c.up = {a1.rows, rank, std::vector<float>(static_cast<size_t>(a1.rows * rank))};
  for (int64_t m = 0; m < a1.rows; ++m)
    for (int64_t i = 0; i < a1.columns; ++i)
      for (int64_t j = 0; j < a2.columns; ++j)
        c.up.values[static_cast<size_t>(m * rank + i * a2.columns + j)] =
            a1.values[static_cast<size_t>(m * a1.columns + i)] *
            a2.values[static_cast<size_t>(m * a2.columns + j)];
  c.down = {rank, b1.columns, std::vector<float>(static_cast<size_t>(rank * b1.columns))};
  for (int64_t i = 0; i < b1.rows; ++i)
    for (int64_t j = 0; j < b2.rows; ++j)
      for (int64_t n = 0; n < b1.columns; ++n)
        c.down.values[static_cast<size_t>((i * b2.rows + j) * b1.columns + n)] =
            b1.values[static_cast<size_t>(i * b1.columns + n)] *
            b2.values[static_cast<size_t>(j * b1.columns + n)];
}

void read_loha(const Reader& r, double scale, Change& c) {
  Matrix a1 = r.matrix(Role::w1_a), b1 = r.matrix(Role::w1_b), a2 = r.matrix(Role::w2_a),
         b2 = r.matrix(Role::w2_b);
  if (r.has(Role::t1)) {
    a1 = product(transposed(a1), r.matrix(Role::t1));
    a2 = product(transposed(a2), r.matrix(Role::t2));
  }
  multiply(a1, scale);
  // Low rank, unless the matrix itself is smaller.
  if (a1.columns <= a1.rows * b1.columns / (a1.rows + b1.columns) / std::max<int64_t>(1, a2.columns))
    return hadamard(a1, b1, a2, b2, c);
  c.dense = product(a1, b1);
  const Matrix other = product(a2, b2);
  for (size_t i = 0; i < c.dense.values.size(); ++i) c.dense.values[i] *= other.values[i];
}

void read_lokr(const Reader& r, const File& file, const Adapter& a, Change& c) {
  int64_t rank = 0;
  if (r.has(Role::k1_b)) rank = r.dims(Role::k1_b)[0];
  if (r.has(Role::k2_b)) rank = r.dims(Role::k2_b)[0];
  c.outer = r.has(Role::k1) ? r.matrix(Role::k1) : product(r.matrix(Role::k1_a), r.matrix(Role::k1_b));
  if (r.has(Role::k2)) {
    c.inner = r.matrix(Role::k2);
  } else {
    Matrix left = r.matrix(Role::k2_a);
    if (r.has(Role::kt2)) left = product(transposed(left), r.matrix(Role::kt2));
    c.inner = product(left, r.matrix(Role::k2_b));
  }
  // Two whole factors have no rank, and alpha means nothing then.
  multiply(c.outer, rank ? file.scale(a, rank) : 1.0);
}

void swap_rows(Change& c) {
  if (!c.outer.empty()) {  // halves of a Kronecker product needn't be rows of its factors
    c.dense = dense_change(c, c.outer.columns * c.inner.columns);
    c.outer = c.inner = {};
  }
  for (Matrix* m : {&c.up, &c.dense}) swap_halves(m->values);
  swap_halves(c.bias);
  if (!c.by_column) swap_halves(c.magnitude);
}

}  // namespace

Matrix product(const Matrix& a, const Matrix& b) {
  Matrix out{a.rows, b.columns, std::vector<float>(static_cast<size_t>(a.rows * b.columns))};
  for (int64_t m = 0; m < a.rows; ++m) {
    float* to = out.values.data() + m * b.columns;
    for (int64_t k = 0; k < a.columns; ++k) {
      const float f = a.values[static_cast<size_t>(m * a.columns + k)];
      const float* from = b.values.data() + k * b.columns;
      for (int64_t n = 0; n < b.columns; ++n) to[n] += f * from[n];
    }
  }
  return out;
}

Matrix transposed(const Matrix& a) {
  Matrix out{a.columns, a.rows, std::vector<float>(a.values.size())};
  for (int64_t i = 0; i < a.rows; ++i)
    for (int64_t j = 0; j < a.columns; ++j)
      out.values[static_cast<size_t>(j * a.rows + i)] = a.values[static_cast<size_t>(i * a.columns + j)];
  return out;
}

std::string check_factors(const File& file, const Adapter& a) {
  const Reader r(file, a);
  const Module& m = a.place.target();
  check_alpha(file, r);
  if (!m.is_linear()) return check_norm(r, a);
  std::vector<Extent> extents;
  for (const auto& e : {lora_extent(r), loha_extent(r), lokr_extent(r), diff_extent(r)})
    if (e) extents.push_back(*e);
  if (extents.empty() && !r.has(Role::diff_bias)) return "nothing that it belongs to is there";
  if (extents.size() > 1)
    r.refuse(fmt::format("{} is changed by {} and by {}: one method is expected", io::shown(a.key),
                         extents[0].what, extents[1].what));
  const int64_t rows = a.place.rows, columns = m.weight[1];
  for (const Extent& e : extents) {
    const bool square = a.place.square && e.columns == rows && r.has(Role::down);
    if (e.rows == rows && (e.columns == columns || square)) continue;
    if (a.place.module == "img_in" && e.rows == rows && e.columns > columns) {
      throw Error(
          ErrorCode::unsupported,
          fmt::format("{} make [{}, {}]: this is a control LoRA, for a transformer whose img_in reads {} "
                      "channels instead of {}; use a control model (FLUX.1 Canny or Depth)",
                      e.what, e.rows, e.columns, e.columns, columns));
    }
    return fmt::format("{} make [{}, {}], {} has [{}, {}]", e.what, e.rows, e.columns, a.place.module, rows,
                       columns);
  }
  std::string why = vector_misfit(r, Role::up_bias, rows);
  if (why.empty()) why = vector_misfit(r, Role::diff_bias, rows);
  if (why.empty() && !extents.empty()) why = check_magnitude(r, rows, columns);
  return why;
}

Change read_change(const File& file, const Adapter& a) {
  const Reader r(file, a);
  Change c;
  c.row = a.place.row;
  c.rows = a.place.rows;
  const Module& m = a.place.target();
  if (!m.is_linear()) {
    if (r.has(Role::value)) c.norm_value = r.values(Role::value);
    if (r.has(Role::diff)) c.norm = r.values(Role::diff);
    if (r.has(Role::diff_bias)) c.bias = r.values(Role::diff_bias);
    return c;
  }
  const int64_t columns = m.weight[1];
  if (r.has(Role::down)) {
    c.down = r.matrix(Role::down);
    c.up = r.matrix(Role::up);
    const double scale = file.scale(a, c.down.rows);
    multiply(c.up, scale);
    if (r.has(Role::up_bias)) {
      c.bias = r.values(Role::up_bias);
      for (float& v : c.bias) v = static_cast<float>(v * scale);
    }
    if (c.down.columns < columns) {  // the first columns alone
      Matrix wide{c.down.rows, columns, std::vector<float>(static_cast<size_t>(c.down.rows * columns))};
      for (int64_t i = 0; i < c.down.rows; ++i)
        std::copy_n(c.down.values.begin() + i * c.down.columns, c.down.columns,
                    wide.values.begin() + i * columns);
      c.down = std::move(wide);
    }
  } else if (r.has(Role::w1_a)) {
    read_loha(r, file.scale(a, r.dims(Role::w1_b)[0]), c);
  } else if (r.has(Role::k1) || r.has(Role::k1_a)) {
    read_lokr(r, file, a, c);
  } else if (r.has(Role::diff)) {
    c.dense = r.matrix(Role::diff);
  }
  if (r.has(Role::diff_bias)) {
    const std::vector<float> more = r.values(Role::diff_bias);
    c.bias.resize(more.size());
    for (size_t i = 0; i < more.size(); ++i) c.bias[i] += more[i];
  }
  if (r.has(Role::magnitude)) {
    c.magnitude = r.values(Role::magnitude);
    const Dims d = r.dims(Role::magnitude);
    c.by_column = d.size() == 2 && d[0] == 1 && !(c.rows == 1 && d[1] == 1);
  }
  if (a.place.swap_halves) swap_rows(c);
  for (const Matrix* x : {&c.up, &c.outer, &c.dense}) {
    if (std::all_of(x->values.begin(), x->values.end(), [](float v) { return std::isfinite(v); })) continue;
    throw Error(ErrorCode::format,
                fmt::format("{}: {} times its scale is too large for f32: the file is damaged",
                            file.source().path(), io::shown(a.key)));
  }
  return c;
}

Matrix dense_change(const Change& c, int64_t columns) {
  if (!c.up.empty()) return product(c.up, c.down);
  if (!c.dense.empty()) return c.dense;
  Matrix out{c.rows, columns, std::vector<float>(static_cast<size_t>(c.rows * columns))};
  for (int64_t i = 0; i < c.outer.rows; ++i)
    for (int64_t j = 0; j < c.outer.columns; ++j)
      for (int64_t k = 0; k < c.inner.rows; ++k)
        for (int64_t l = 0; l < c.inner.columns; ++l)
          out.values[static_cast<size_t>((i * c.inner.rows + k) * columns + j * c.inner.columns + l)] =
              c.outer.values[static_cast<size_t>(i * c.outer.columns + j)] *
              c.inner.values[static_cast<size_t>(k * c.inner.columns + l)];
  return out;
}

}  // namespace vkflux::lora
