// Which structure of kernels an op takes, where somebody asks for one: VKFLUX_VARIANT and VariantOverride.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdlib>
#include <utility>
#include <vector>

#include "autograd/run.h"
#include "vk/error.h"

namespace vkflux {
namespace {

using Names = std::vector<std::string_view>;
struct Forms {
  std::string_view op;
  Names forms;
};

const Names kTwo = {"simd", "gpu"};
const Forms kOps[] = {{"*", kTwo},
                      {"accumulate", kTwo},
                      {"adamw", kTwo},
                      {"affine", kTwo},
                      {"attention", {"coop", "flash", "panels", "composed"}},
                      {"binary", kTwo},
                      {"blend_inplace", kTwo},
                      {"conv2d", kTwo},
                      {"conv2d_margin", kTwo},
                      {"conv2d_weight", {"products", "direct"}},
                      {"feature_map", kTwo},
                      {"feature_network", kTwo},
                      {"gated", kTwo},
                      {"global_norm", kTwo},
                      {"group_norm", kTwo},
                      {"hkr_blend", kTwo},
                      {"kernel_quotient", kTwo},
                      {"l2norm", kTwo},
                      {"layer_norm", kTwo},
                      {"matmul", {"simd", "gpu", "panels", "matvec", "coop"}},
                      {"qk_norm_rope", kTwo},
                      {"rms_norm", kTwo},
                      {"scale_columns", kTwo},
                      {"soft_l2norm", kTwo},
                      {"softmax", kTwo},
                      {"timestep_embedding", kTwo},
                      {"unary", kTwo}};

const Forms* find_op(std::string_view op) {
  const auto* it = std::find_if(std::begin(kOps), std::end(kOps), [&](const Forms& f) { return f.op == op; });
  return it == std::end(kOps) ? nullptr : it;
}

void check(std::string_view origin, std::string_view op, std::string_view form) {
  const Forms* known = find_op(op);
  if (!known) {
    Names names;
    for (const Forms& f : kOps) names.push_back(f.op);
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{}: no op '{}' has kernels to choose from; there are {}", origin, op,
                            fmt::join(names, ", ")));
  }
  if (std::find(known->forms.begin(), known->forms.end(), form) == known->forms.end()) {
    throw Error(ErrorCode::invalid_argument, fmt::format("{}: {} has no form '{}'; there are {}", origin, op,
                                                         form, fmt::join(known->forms, ", ")));
  }
}

struct Override {
  std::string op, form;
  VariantOverride::Where where;
};

std::vector<Override> from_environment() {
  constexpr std::string_view kName = "VKFLUX_VARIANT";
  const char* env = std::getenv(kName.data());
  std::vector<Override> out;
  std::string_view text = env ? env : "";
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    const std::string_view entry = text.substr(0, comma);
    const size_t colon = entry.find(':');
    if (colon == std::string_view::npos || comma + 1 == text.size()) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("{}: '{}' is no list of OP:FORM, matmul:gpu,attention:flash say", kName, env));
    }
    out.push_back({std::string(entry.substr(0, colon)), std::string(entry.substr(colon + 1)),
                   VariantOverride::Where::it_fits});
    check(kName, out.back().op, out.back().form);
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  return out;
}

std::vector<Override>& overrides() {
  thread_local std::vector<Override> list = from_environment();
  return list;
}

const Override* innermost(std::string_view op) {
  const auto& list = overrides();
  if (list.empty()) return nullptr;
  if (!find_op(op)) throw Error(ErrorCode::internal, fmt::format("op {} isn't in the table of forms", op));
  const auto it =
      std::find_if(list.rbegin(), list.rend(), [&](const auto& o) { return o.op == op || o.op == "*"; });
  return it == list.rend() ? nullptr : &*it;
}

}  // namespace

VariantOverride::VariantOverride(std::string op, std::string form, Where where) {
  check("VariantOverride", op, form);
  overrides().push_back({std::move(op), std::move(form), where});
}
VariantOverride::~VariantOverride() {
  overrides().pop_back();
}

std::string forced_variant(const char* op) {
  const Override* o = innermost(op);
  return o ? o->form : std::string();
}

void took_variant(const char* op, std::string_view form) {
  const Override* o = innermost(op);
  if (o && o->where == VariantOverride::Where::always && o->form != form) {
    throw Error(ErrorCode::internal,
                fmt::format("{}: the form '{}' was asked for, but takes no such call; '{}' would run", op,
                            o->form, form));
  }
}

void check_forced_variants() {
  overrides();
}

bool use_simd(Device& device, const char* op) {
  const std::string forced = forced_variant(op);
  if (forced == "simd" && !device.caps().simd()) {
    static bool said = false;
    if (!std::exchange(said, true)) {
      spdlog::warn("{}: the form 'simd' was asked for; {} has no such subgroups and takes 'gpu'", op,
                   device.caps().device_name);
    }
  }
  if (!forced.empty()) return forced == "simd" && device.caps().simd();
  return device.device_class() == DeviceClass::cpu && device.caps().simd();
}

}  // namespace vkflux
