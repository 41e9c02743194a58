// The kinds of attention that a plan can ask for, as rows. A new kind is a row here and an Attention
// (attention.h) that somebody puts into a backbone's bank.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace vkflux {

enum class AttentionKind : uint8_t { full, hkr };

struct AttentionKindRow {
  AttentionKind kind;
  std::string_view name;  // in reports, traces and messages
};

/// In the order of the enumeration. Every layer has the first one.
inline constexpr std::array<AttentionKindRow, 2> kAttentionKinds{
    {{AttentionKind::full, "full"}, {AttentionKind::hkr, "hkr"}}};

constexpr std::string_view name(AttentionKind kind) {
  return kAttentionKinds[static_cast<size_t>(kind)].name;
}

/// The kind that each layer of a backbone should use in one step, by the layers' order; layers past its end
/// use full attention.
using RoutePlan = std::vector<AttentionKind>;

}  // namespace vkflux
