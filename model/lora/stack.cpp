#include "model/lora/stack.h"

#include <algorithm>
#include <cmath>

namespace vkflux::lora {
namespace {

constexpr int64_t kRowsAtOnce = 1024;  // of a weight, decoded for its norms

Matrix rows_of(const Matrix& m, int64_t start, int64_t n) {
  const auto at = m.values.begin() + start * m.columns;
  return {n, m.columns, {at, at + n * m.columns}};
}

Tensor on_device(Device& device, const Matrix& m, DType dtype = DType::f32,
                 MemoryClass cls = MemoryClass::scratch) {
  return Tensor::from(device, std::span<const float>(m.values), Shape{m.rows, m.columns}, dtype, cls);
}

void add_to(std::vector<float>& sum, size_t size, const std::vector<float>& x, int64_t at, float factor) {
  if (x.empty()) return;
  sum.resize(size);
  for (size_t i = 0; i < x.size(); ++i) sum[static_cast<size_t>(at) + i] += factor * x[i];
}

void multiply(Matrix& m, float factor) {
  for (float& v : m.values) v *= factor;
}

void multiply_rows(Matrix& m, const std::vector<float>& factors) {
  for (int64_t i = 0; i < m.rows; ++i)
    for (int64_t j = 0; j < m.columns; ++j)
      m.values[static_cast<size_t>(i * m.columns + j)] *= factors[static_cast<size_t>(i)];
}

float largest(const Matrix& m) {
  float most = 0;
  for (const float v : m.values) most = std::max(most, std::abs(v));
  return most;
}

// Powers of two between the factors of a product change nothing but where f16 is precise: both get numbers of
// one size.
void balance(Matrix& a, Matrix& b) {
  const float x = largest(a), y = largest(b);
  if (!(x > 0) || !(y > 0)) return;
  const int shift = static_cast<int>(std::lround((std::log2(y) - std::log2(x)) / 2));
  multiply(a, std::ldexp(1.0f, shift));
  multiply(b, std::ldexp(1.0f, -shift));
}

bool fits_f16(const Matrix& m) {
  return largest(m) < 65504;
}

}  // namespace

Base device_base(const Module& module, const ReadParameter& read) {
  const Tensor* weight = module.weight_tensor;
  const auto values = std::make_shared<std::vector<float>>();  // read once
  const auto part = [weight, values, read, name = module.weight_name](int64_t row, int64_t rows) {
    if (!read) return op::narrow(*weight, 0, row, rows);
    if (values->empty()) *values = read(name);
    const int64_t columns = weight->dim(1);
    const auto from = std::span<const float>(*values).subspan(static_cast<size_t>(row * columns),
                                                              static_cast<size_t>(rows * columns));
    return Tensor::from(weight->device(), from, {rows, columns}, DType::f32, MemoryClass::scratch);
  };
  Base base;
  base.rows = [part](int64_t row, int64_t rows, int64_t) { return part(row, rows).to_host(); };
  base.row_norms = [weight, part](const Change& c, float strength) {
    Device& device = weight->device();
    const Tensor down = c.up.empty() ? Tensor() : on_device(device, c.down);
    const Matrix whole = c.outer.empty() ? Matrix() : dense_change(c, weight->dim(1));
    const Matrix& dense = c.outer.empty() ? c.dense : whole;
    std::vector<float> norms;
    for (int64_t at = 0; at < c.rows; at += kRowsAtOnce) {
      const int64_t n = std::min(kRowsAtOnce, c.rows - at);
      const Tensor rows = part(c.row + at, n);
      const Tensor w = is_packed(rows.dtype()) ? op::dequantize(rows) : op::cast(rows, DType::f32);
      const Tensor d = c.up.empty() ? on_device(device, rows_of(dense, at, n))
                                    : op::matmul(on_device(device, rows_of(c.up, at, n)), down);
      const Tensor sums = op::sum(op::unary(op::add(w, op::affine(d, strength)), op::Unary::square), {1});
      for (const float s : sums.to_host()) norms.push_back(std::sqrt(s));
    }
    return norms;
  };
  return base;
}

Base host_base(const std::vector<float>& values) {
  Base base;
  base.rows = [&values](int64_t row, int64_t rows, int64_t columns) {
    return std::vector<float>(values.begin() + row * columns, values.begin() + (row + rows) * columns);
  };
  base.row_norms = [&values](const Change& c, float strength) {
    const int64_t columns = !c.up.empty()      ? c.down.columns
                            : !c.outer.empty() ? c.outer.columns * c.inner.columns
                                               : c.dense.columns;
    const Matrix d = dense_change(c, columns);
    std::vector<float> norms;
    for (int64_t i = 0; i < c.rows; ++i) {
      double sum = 0;
      for (int64_t j = 0; j < columns; ++j) {
        const double x = static_cast<double>(values[static_cast<size_t>((c.row + i) * columns + j)]) +
                         static_cast<double>(strength) * d.values[static_cast<size_t>(i * columns + j)];
        sum += x * x;
      }
      norms.push_back(static_cast<float>(std::sqrt(sum)));
    }
    return norms;
  };
  return base;
}

void Stack::add(const Change& change, float strength, const Base& base) {
  if (!module_.is_linear()) return add_norm(change, strength);
  const auto out = static_cast<size_t>(module_.weight[0]);
  add_to(bias_, out, change.bias, change.row, strength);
  if (!change.changes_weight()) return;
  Change c = change;
  if (!c.magnitude.empty()) {
    c.by_column ? decompose_columns(c, strength, base) : decompose(c, strength, base);
  } else {
    for (Matrix* m : {&c.up, &c.outer, &c.dense}) multiply(*m, strength);
  }
  changes_.push_back(std::move(c));
}

void Stack::add_norm(const Change& change, float strength) {
  const auto n = static_cast<size_t>(module_.weight[0]);
  add_to(bias_, n, change.bias, 0, strength);
  add_to(norm_, n, change.norm, 0, strength);
  if (!change.norm_value.empty()) norm_value_ = change.norm_value;
}

void Stack::decompose(Change& c, float strength, const Base& base) {
  std::vector<float> gains = base.row_norms(c, strength);
  for (size_t i = 0; i < gains.size(); ++i) gains[i] = gains[i] > 0 ? c.magnitude[i] / gains[i] : 0;
  const auto out = static_cast<size_t>(module_.weight[0]);
  if (gain_.empty()) gain_.assign(out, 1);
  for (size_t i = 0; i < gains.size(); ++i) gain_[static_cast<size_t>(c.row) + i] += gains[i] - 1;
  if (!c.outer.empty()) {
    c.dense = dense_change(c, module_.weight[1]);
    c.outer = c.inner = {};
  }
  for (float& g : gains) g *= strength;
  multiply_rows(c.up, gains);
  multiply_rows(c.dense, gains);
}

// The columns' norms are those of the changed weight, and the strength moves the weight towards it.
void Stack::decompose_columns(Change& c, float strength, const Base& base) {
  const int64_t columns = module_.weight[1];
  Matrix d = dense_change(c, columns);
  const std::vector<float> weight = base.rows(c.row, c.rows, columns);
  std::vector<double> squares(static_cast<size_t>(columns));
  const auto at = [&](int64_t i, int64_t j) { return static_cast<size_t>(i * columns + j); };
  for (int64_t i = 0; i < c.rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      const double x = static_cast<double>(weight[at(i, j)]) + d.values[at(i, j)];
      squares[static_cast<size_t>(j)] += x * x;
    }
  }
  for (int64_t i = 0; i < c.rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      const auto k = static_cast<size_t>(j);
      const double norm = std::sqrt(squares[k]);
      const double x = static_cast<double>(weight[at(i, j)]) + d.values[at(i, j)];
      d.values[at(i, j)] =
          strength * static_cast<float>((norm > 0 ? x * c.magnitude[k] / norm : 0) - weight[at(i, j)]);
    }
  }
  c.up = c.down = c.outer = c.inner = {};
  c.dense = std::move(d);
}

std::shared_ptr<const SidePath> Stack::side_path(Device& device, DType matrices) const {
  const int64_t out = module_.weight[0], in = module_.weight[1];
  int64_t rank = 0;
  for (const Change& c : changes_) rank += c.up.columns;
  Matrix down{rank, in, {}}, up{out, rank, std::vector<float>(static_cast<size_t>(out * rank))},
      dense{out, in, {}};
  auto side = std::make_shared<SidePath>();
  const auto stored = [&](const Matrix& m) {
    const DType dtype = matrices != DType::f32 && fits_f16(m) ? DType::f16 : DType::f32;
    return on_device(device, m, dtype, MemoryClass::weights);
  };
  int64_t first = 0;  // of the ranks of this change
  for (const Change& c : changes_) {
    if (!c.up.empty()) {
      Matrix a = c.down, b = c.up;
      if (matrices != DType::f32) balance(a, b);
      down.values.insert(down.values.end(), a.values.begin(), a.values.end());
      for (int64_t i = 0; i < c.rows; ++i)
        std::copy_n(b.values.begin() + i * b.columns, b.columns,
                    up.values.begin() + (c.row + i) * rank + first);
      first += b.columns;
    } else if (!c.outer.empty()) {
      Matrix a = c.outer, b = c.inner;
      if (matrices != DType::f32) balance(a, b);
      side->products.push_back({stored(a), stored(b), c.row});
    } else {
      add_to(dense.values, static_cast<size_t>(out * in), c.dense.values, c.row * in, 1);
    }
  }
  if (rank > 0) {
    side->down = stored(down);
    side->up = stored(up);
  }
  if (!dense.values.empty()) side->dense = stored(dense);
  const auto row = [&](const std::vector<float>& v) {
    return v.empty() ? Tensor()
                     : on_device(device, {1, out, v}, DType::f32, MemoryClass::weights).view({out});
  };
  side->gain = row(gain_);
  side->bias = row(bias_);
  return side;
}

uint64_t Stack::attach(const Module& module, const ReadParameter& read) const {
  Device& device = module.weight_tensor->device();
  if (module.linear) {
    if (changes_.empty() && bias_.empty()) return 0;
    module.linear->side = side_path(device, module.weight_tensor->dtype());
    return module.linear->side->bytes();
  }
  const auto change = [&](Tensor* t, const std::string& name,
                          bool (Stack::*merge)(std::vector<float>&) const) {
    if (!t) return;
    std::vector<float> values = read ? read(name) : t->to_host();
    if ((this->*merge)(values))
      *t = Tensor::from(device, std::span<const float>(values), t->shape(), DType::f32, MemoryClass::weights);
  };
  const std::string& weight = module.weight_name;
  change(module.weight_tensor, weight, &Stack::merge_weight);
  change(module.bias_tensor, weight.substr(0, weight.rfind('.')) + ".bias", &Stack::merge_bias);
  return 0;
}

bool Stack::merge_weight(std::vector<float>& values) const {
  if (!module_.is_linear()) {
    if (!norm_value_.empty()) values = norm_value_;
    add_to(values, values.size(), norm_, 0, 1);
    return !norm_value_.empty() || !norm_.empty();
  }
  const int64_t columns = module_.weight[1];
  for (size_t i = 0; i < gain_.size(); ++i)
    for (int64_t j = 0; j < columns; ++j)
      values[i * static_cast<size_t>(columns) + static_cast<size_t>(j)] *= gain_[i];
  for (const Change& c : changes_)
    add_to(values, values.size(), dense_change(c, columns).values, c.row * columns, 1);
  return !changes_.empty();
}

bool Stack::merge_bias(std::vector<float>& values) const {
  add_to(values, values.size(), bias_, 0, 1);
  return !bias_.empty();
}

}  // namespace vkflux::lora
