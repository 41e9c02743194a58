#include <fmt/format.h>

#include "app/cli/cli.h"

namespace vkflux::cli {
namespace {

nlohmann::ordered_json describe(size_t index, const Caps& c) {
  nlohmann::ordered_json j;
  j["index"] = index;
  j["name"] = c.device_name;
  j["class"] = name(c.device_class);
  j["driver"] = c.driver_name + " " + c.driver_info;
  j["vulkan"] = fmt::format("{}.{}.{}", VK_API_VERSION_MAJOR(c.api_version),
                            VK_API_VERSION_MINOR(c.api_version), VK_API_VERSION_PATCH(c.api_version));
  j["usable"] = c.api_version >= VK_API_VERSION_1_2;
  j["memory_bytes"] = c.device_memory;
  j["subgroup_size"] = c.subgroup_size;
  j["max_storage_buffer_range"] = c.max_storage_buffer_range;
  j["max_shared_memory"] = c.max_shared_memory;
  j["push_descriptor"] = c.push_descriptor;
  j["fp16"] = c.fp16;
  j["int8"] = c.int8;
  j["cooperative_matrix"] = c.coopmat;
  j["bfloat16"] = c.bf16;
  return j;
}

}  // namespace

void add_devices(CLI::App& app) {
  auto common = std::make_shared<Common>();
  add_command(app, "devices", "list the Vulkan devices and what they can do", "vkflux devices --json", common,
              [common] {
                const std::vector<Caps> found = Device::enumerate();
                nlohmann::ordered_json list = nlohmann::ordered_json::array();
                for (size_t i = 0; i < found.size(); ++i) list.push_back(describe(i, found[i]));
                if (common->json) {
                  print_out("{}\n", list.dump(2));
                  return static_cast<int>(found.empty() ? kNoDevice : kOk);
                }
                if (found.empty())
                  print_note("no Vulkan device; install a driver (mesa-vulkan-drivers runs on the CPU)\n");
                for (size_t i = 0; i < found.size(); ++i) {
                  const Caps& c = found[i];
                  print_out(
                      "{}: {}\n   {} class, Vulkan {}, {} {}\n   memory {:.1f} GiB, subgroup {}, storage "
                      "binding {} MiB, fp16 {}, "
                      "int8 {}, cooperative matrix {}\n",
                      i, c.device_name, name(c.device_class), list[i]["vulkan"].get<std::string>(),
                      c.driver_name, c.driver_info, static_cast<double>(c.device_memory) / (1ull << 30),
                      c.subgroup_size, c.max_storage_buffer_range >> 20, c.fp16 ? "yes" : "no",
                      c.int8 ? "yes" : "no", c.coopmat ? "yes" : "no");
                }
                return static_cast<int>(found.empty() ? kNoDevice : kOk);
              });
}

}  // namespace vkflux::cli
