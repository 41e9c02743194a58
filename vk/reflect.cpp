#include <fmt/format.h>
#include <spirv_cross/spirv_cross_c.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "vk/error.h"
#include "vk/kernel.h"

namespace vkflux {
namespace {

[[noreturn]] void bad(std::string_view name, std::string_view what) {
  throw Error(ErrorCode::internal, fmt::format("shader {}: {}", name, what));
}

VkFormat texel_format(spvc_basetype type) {
  switch (type) {
    case SPVC_BASETYPE_FP32:
      return VK_FORMAT_R32G32B32A32_SFLOAT;
    case SPVC_BASETYPE_UINT32:
      return VK_FORMAT_R32G32B32A32_UINT;
    case SPVC_BASETYPE_INT32:
      return VK_FORMAT_R32G32B32A32_SINT;
    default:
      return VK_FORMAT_UNDEFINED;
  }
}

struct Reflector {
  std::string_view name;
  spvc_compiler compiler;
  spvc_resources resources;
  KernelInterface out;

  template <class F>
  void each(spvc_resource_type type, F f) {
    const spvc_reflected_resource* list = nullptr;
    size_t n = 0;
    spvc_resources_get_resource_list_for_type(resources, type, &list, &n);
    for (size_t i = 0; i < n; ++i) f(list[i]);
  }

  void storage(const spvc_reflected_resource& r) {
    KernelBinding b;
    b.binding = spvc_compiler_get_decoration(compiler, r.id, SpvDecorationBinding);
    const SpvDecoration* decorations = nullptr;
    size_t n = 0;
    spvc_compiler_get_buffer_block_decorations(compiler, r.id, &decorations, &n);
    const auto has = [&](SpvDecoration d) {
      return std::find(decorations, decorations + n, d) != decorations + n;
    };
    b.written = !has(SpvDecorationNonWritable);
    b.read = !has(SpvDecorationNonReadable);
    out.bindings.push_back(b);
  }

  void texel(const spvc_reflected_resource& r) {
    KernelBinding b;
    b.binding = spvc_compiler_get_decoration(compiler, r.id, SpvDecorationBinding);
    b.type = KernelBinding::Type::texel;
    const spvc_type type = spvc_compiler_get_type_handle(compiler, r.base_type_id);
    const spvc_type sampled = spvc_compiler_get_type_handle(compiler, spvc_type_get_image_sampled_type(type));
    if (spvc_type_get_image_dimension(type) != SpvDimBuffer)
      bad(name, "images other than texel buffers are not used");
    b.format = texel_format(spvc_type_get_basetype(sampled));
    out.bindings.push_back(b);
  }
};

// The reflection library may be older than cooperative matrices and stops at types that it doesn't know. The
// interface has none of them, so each becomes an array, which needs as many operands for the rest of the
// module to stay parseable.
std::vector<uint32_t> with_known_types(const uint32_t* words, size_t count) {
  constexpr uint32_t kTypeCooperativeMatrix = 4456, kTypeArray = 28, kNop = 1u << 16;
  std::vector<uint32_t> out(words, words + count);
  for (size_t i = 5; i < count;) {
    const uint32_t length = out[i] >> 16;
    if (length == 0 || length > count - i) break;
    if ((out[i] & 0xffff) == kTypeCooperativeMatrix && length == 7) {  // result, component, scope, rows, ...
      out[i] = 4u << 16 | kTypeArray;
      out[i + 3] = out[i + 4];
      for (size_t rest = 4; rest < 7; ++rest) out[i + rest] = kNop;
    }
    i += length;
  }
  return out;
}

// Whether the module reads gl_NumWorkGroups.
bool counts_groups(const uint32_t* words, size_t count) {
  constexpr uint32_t kDecorate = 71, kBuiltIn = 11, kNumWorkgroups = 24;
  for (size_t i = 5; i < count;) {
    const uint32_t length = words[i] >> 16;
    if (length == 0 || length > count - i) break;
    if ((words[i] & 0xffff) == kDecorate && length == 4 && words[i + 2] == kBuiltIn &&
        words[i + 3] == kNumWorkgroups) {
      return true;
    }
    i += length;
  }
  return false;
}

}  // namespace

KernelInterface reflect(std::string_view name, const uint32_t* words, size_t count) {
  spvc_context raw = nullptr;
  if (spvc_context_create(&raw) != SPVC_SUCCESS) bad(name, "no memory for reflection");
  const std::unique_ptr<spvc_context_s, void (*)(spvc_context)> context(raw, spvc_context_destroy);
  spvc_parsed_ir ir = nullptr;
  Reflector r{name, nullptr, nullptr, {}};
  const std::vector<uint32_t> known = with_known_types(words, count);
  if (spvc_context_parse_spirv(raw, known.data(), count, &ir) != SPVC_SUCCESS ||
      spvc_context_create_compiler(raw, SPVC_BACKEND_NONE, ir, SPVC_CAPTURE_MODE_TAKE_OWNERSHIP,
                                   &r.compiler) != SPVC_SUCCESS ||
      spvc_compiler_create_shader_resources(r.compiler, &r.resources) != SPVC_SUCCESS) {
    bad(name, spvc_context_get_last_error_string(raw));
  }
  r.each(SPVC_RESOURCE_TYPE_STORAGE_BUFFER, [&](const auto& x) { r.storage(x); });
  r.each(SPVC_RESOURCE_TYPE_SAMPLED_IMAGE, [&](const auto& x) { r.texel(x); });
  r.each(SPVC_RESOURCE_TYPE_SEPARATE_IMAGE, [&](const auto& x) { r.texel(x); });
  r.each(SPVC_RESOURCE_TYPE_PUSH_CONSTANT, [&](const spvc_reflected_resource& x) {
    size_t bytes = 0;
    spvc_compiler_get_declared_struct_size(r.compiler,
                                           spvc_compiler_get_type_handle(r.compiler, x.base_type_id), &bytes);
    r.out.push_bytes = static_cast<uint32_t>(bytes);
  });
  const spvc_specialization_constant* constants = nullptr;
  size_t n = 0;
  spvc_compiler_get_specialization_constants(r.compiler, &constants, &n);
  for (size_t i = 0; i < n; ++i) r.out.constants = std::max(r.out.constants, constants[i].constant_id + 1);
  r.out.counts_groups = counts_groups(words, count);
  auto& b = r.out.bindings;
  std::sort(b.begin(), b.end(), [](const auto& x, const auto& y) { return x.binding < y.binding; });
  for (uint32_t i = 0; i < b.size(); ++i) {
    if (b[i].binding != i) bad(name, "bindings must count from 0 without gaps");
  }
  if (r.out.push_bytes > 128) bad(name, "more than 128 bytes of push constants");
  return r.out;
}

}  // namespace vkflux
