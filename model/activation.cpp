#include "model/activation.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "vk/error.h"

namespace vkflux {
namespace {

using op::Unary;

template <Unary kind>
Tensor plain(const Tensor& x) {
  return op::unary(x, kind);
}
Tensor same(const Tensor& x) {
  return x;
}
Tensor relu2(const Tensor& x) {
  return op::unary(op::unary(x, Unary::relu), Unary::square);
}
/// min(max(x, 0), 6)
Tensor relu6(const Tensor& x) {
  return op::affine(op::unary(op::affine(op::unary(x, Unary::relu), -1, 6), Unary::relu), -1, 6);
}
Tensor leaky_relu(const Tensor& x) {
  constexpr float kSlope = 0.01f;
  return op::add(op::affine(x, kSlope), op::affine(op::unary(x, Unary::relu), 1 - kSlope));
}
Tensor mish(const Tensor& x) {
  return op::mul(x, op::unary(op::unary(x, Unary::softplus), Unary::tanh));
}

constexpr auto kGeluTanh = &plain<Unary::gelu_tanh>;
constexpr std::array kRows{
    Activation::Row{"quick_gelu", op::Activation::gelu_quick, &plain<Unary::gelu_quick>},
    Activation::Row{"gelu", op::Activation::gelu_erf, &plain<Unary::gelu_erf>},
    Activation::Row{"gelu_python", op::Activation::gelu_erf, &plain<Unary::gelu_erf>},
    Activation::Row{"gelu_new", op::Activation::gelu_tanh, kGeluTanh},
    Activation::Row{"gelu_pytorch_tanh", op::Activation::gelu_tanh, kGeluTanh},
    Activation::Row{"gelu_python_tanh", op::Activation::gelu_tanh, kGeluTanh},
    Activation::Row{"gelu_fast", op::Activation::gelu_tanh, kGeluTanh},
    Activation::Row{"gelu_accurate", op::Activation::gelu_tanh, kGeluTanh},
    Activation::Row{"silu", op::Activation::silu, &plain<Unary::silu>},
    Activation::Row{"swish", op::Activation::silu, &plain<Unary::silu>},
    Activation::Row{"relu", op::Activation::none, &plain<Unary::relu>},
    Activation::Row{"relu2", op::Activation::none, &relu2},
    Activation::Row{"relu6", op::Activation::none, &relu6},
    Activation::Row{"leaky_relu", op::Activation::none, &leaky_relu},
    Activation::Row{"mish", op::Activation::none, &mish},
    Activation::Row{"sigmoid", op::Activation::none, &plain<Unary::sigmoid>},
    Activation::Row{"tanh", op::Activation::none, &plain<Unary::tanh>},
    Activation::Row{"linear", op::Activation::none, &same}};

}  // namespace

std::optional<Activation> Activation::named(std::string_view name) {
  const auto row = std::find_if(kRows.begin(), kRows.end(), [&](const Row& r) { return r.name == name; });
  return row == kRows.end() ? std::nullopt : std::optional(Activation(*row));
}

std::string Activation::known() {
  std::string out;
  for (const Row& row : kRows) out += fmt::format("{}{}", out.empty() ? "" : ", ", row.name);
  return out;
}

Activation Activation::of_config(std::string_view name, const std::string& where) {
  if (const auto found = named(name)) return *found;
  throw Error(ErrorCode::unsupported, fmt::format("{} \"{}\"; known are {}", where, name, known()));
}

}  // namespace vkflux
