// `vkflux kernels`: what the driver's compiler makes of the kernels, with the tiles that the ops choose here.
#include <fmt/format.h>

#include "app/cli/cli.h"
#include "bench/cases.h"
#include "bench/compiled.h"

namespace vkflux::cli {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::string filter;
  bool small = false;
};

// Runs every case once: whatever the ops launch gets compiled.
void launch_all(Device& device, const Options& o) {
  using Add = void (*)(std::vector<bench::Case>&, Device&);
  const std::pair<const char*, Add> families[] = {{"linear", bench::add_linear},
                                                  {"attention", bench::add_attention},
                                                  {"pointwise", bench::add_pointwise},
                                                  {"images", bench::add_images},
                                                  {"blocks", bench::add_blocks}};
  Progress progress("compile", std::size(families));
  int64_t done = 0;
  for (const auto& [name, add] : families) {
    std::vector<bench::Case> cases;
    add(cases, device);
    for (const bench::Case& c : cases) {
      check_interrupted("compiling");
      if ((o.small && c.big) || (c.name + " " + c.shape).find(o.filter) == std::string::npos) continue;
      c.make().prepare()();
      device.stream().sync();
    }
    progress.update(++done, name);
  }
}

Json to_json(const bench::Compiled& c) {
  Json j{{"kernel", c.kernel}, {"spec", c.spec}, {"subgroup_size", c.subgroup_size}};
  const auto put = [&](const char* key, const std::optional<double>& v) {
    j[key] = v ? Json(*v) : Json(nullptr);
  };
  put("registers", c.registers);
  put("spills", c.spills);
  put("scratch_bytes", c.scratch_bytes);
  put("shared_bytes", c.shared_bytes);
  put("occupancy", c.occupancy);
  put("instructions", c.instructions);
  return j;
}

void print(const std::vector<bench::Compiled>& rows) {
  print_out("{:<32}{:>5}{:>6}{:>8}{:>9}{:>8}{:>7}{:>8}  {}\n", "kernel", "wave", "regs", "spills", "scratch",
            "shared", "occup", "instr", "specialised to");
  const auto text = [](const std::optional<double>& v) { return v ? fmt::format("{:.0f}", *v) : "-"; };
  for (const bench::Compiled& c : rows) {
    print_out("{:<32}{:>5}{:>6}{:>8}{:>9}{:>8}{:>7}{:>8}  {}\n", c.kernel, c.subgroup_size, text(c.registers),
              text(c.spills), text(c.scratch_bytes), text(c.shared_bytes), text(c.occupancy),
              text(c.instructions), fmt::join(c.spec, " "));
  }
}

int run(const Common& common, const Options& o) {
  DeviceOptions options;
  options.select = common.device;
  options.capture_statistics = true;
  const auto device = Device::create(options);
  const Caps& caps = device->caps();
  if (!device->captures_statistics()) {
    throw Error(
        ErrorCode::unsupported,
        fmt::format("{} ({} {}) has no VK_KHR_pipeline_executable_properties: its compiler's statistics "
                    "can't be read",
                    caps.device_name, caps.driver_name, caps.driver_info));
  }
  launch_all(*device, o);
  const std::vector<bench::Compiled> rows = bench::compiled(device->kernels().list());
  if (common.json) {
    Json list = Json::array();
    for (const bench::Compiled& c : rows) list.push_back(to_json(c));
    print_out("{}\n", Json{{"device", caps.device_name},
                           {"class", name(device->device_class())},
                           {"driver", caps.driver_name + " " + caps.driver_info},
                           {"kernels", list}}
                          .dump(1));
    return kOk;
  }
  print_out("{} ({} class), {} {}\n\n", caps.device_name, name(device->device_class()), caps.driver_name,
            caps.driver_info);
  print(rows);
  return kOk;
}

}  // namespace

void add_kernels(CLI::App& app) {
  auto common = std::make_shared<Common>();
  auto o = std::make_shared<Options>();
  CLI::App* c = add_command(
      app, "kernels", "registers, spills and occupancy of the kernels, from the driver's compiler",
      "vkflux kernels --filter linear", common, [common, o] { return run(*common, *o); });
  c->add_option("--filter", o->filter, "only rows of `vkflux bench` whose name and shape contain this");
  c->add_flag("--small", o->small, "without the sizes that bench measures with --full");
}

}  // namespace vkflux::cli
