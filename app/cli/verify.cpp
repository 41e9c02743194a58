#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "app/cli/cli.h"
#include "app/verify/case.h"

namespace vkflux::cli {
namespace {

struct Options {
  std::vector<std::string> paths;
  std::string dump;
  bool verbose = false;
};

std::vector<std::string> golden_files(const std::vector<std::string>& paths) {
  namespace fs = std::filesystem;
  std::vector<std::string> out;
  for (const std::string& p : paths) {
    if (!fs::exists(p)) throw Error(ErrorCode::io, fmt::format("{}: no such file or folder", p));
    if (!fs::is_directory(p)) {
      out.push_back(p);
      continue;
    }
    std::vector<std::string> found;
    for (const auto& e : fs::directory_iterator(p)) {
      const std::string ext = e.path().extension().string();
      if (ext == ".safetensors" || ext == ".json") found.push_back(e.path().string());
    }
    std::sort(found.begin(), found.end());
    out.insert(out.end(), found.begin(), found.end());
  }
  return out;
}

nlohmann::ordered_json to_json(const verify::Report& r) {
  nlohmann::ordered_json checks = nlohmann::ordered_json::array();
  for (const verify::Check& c : r.checks) {
    nlohmann::ordered_json j{{"tensor", c.tensor},
                             {"error", nullptr},
                             {"tolerance", c.tolerance},
                             {"metric", c.absolute ? "absolute" : "relative to max|want|"},
                             {"passed", c.passed}};
    if (std::isfinite(c.error)) j["error"] = c.error;
    if (!c.note.empty()) j["note"] = c.note;
    checks.push_back(j);
  }
  nlohmann::ordered_json j{{"file", r.file}, {"case", r.kind}, {"passed", r.passed()}, {"checks", checks}};
  if (!r.error.empty()) j["error"] = r.error;
  return j;
}

void print(const verify::Report& r, bool verbose) {
  size_t bad = 0;
  double worst = 0;
  for (const verify::Check& c : r.checks) {
    bad += !c.passed;
    if (c.tolerance > 0) worst = std::max(worst, c.error / c.tolerance);
    if (c.passed && !verbose) continue;
    print_out("  {} {:<48} {:.3g} (tolerance {:.3g}{}){}{}\n", c.passed ? "ok  " : "FAIL", c.tensor, c.error,
              c.tolerance, c.absolute ? ", absolute" : "", c.note.empty() ? "" : ": ", c.note);
  }
  if (!r.error.empty()) print_out("  {}\n", r.error);
  print_out("{} {}: {} of {} tensors, worst at {:.0f}% of its tolerance\n", r.passed() ? "PASS" : "FAIL",
            std::filesystem::path(r.file).filename().string(), r.checks.size() - bad, r.checks.size(),
            100 * worst);
}

int run(const Common& common, const Options& o) {
  const std::vector<std::string> files = golden_files(o.paths);
  const auto device = open_device(common);
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  size_t passed = 0;
  for (const std::string& file : files) {
    check_interrupted("the verification");
    const verify::Report r = verify::run_file(*device, file, o.dump);
    passed += r.passed();
    if (common.json) {
      all.push_back(to_json(r));
    } else {
      print(r, o.verbose);
    }
  }
  const bool ok = passed == files.size() && !files.empty();
  if (common.json) {
    print_out(
        "{}\n",
        nlohmann::ordered_json{{"device", device->caps().device_name}, {"passed", ok}, {"cases", all}}.dump(
            1));
  } else {
    print_out("{} of {} cases passed on {}\n", passed, files.size(), device->caps().device_name);
  }
  return ok ? kOk : kVerificationFailed;
}

}  // namespace

void add_verify(CLI::App& app) {
  auto common = std::make_shared<Common>();
  auto o = std::make_shared<Options>();
  CLI::App* c = add_command(app, "verify", "check the ops and models of this device against golden files",
                            "vkflux verify --verbose goldens/flux1_full_grad.safetensors", common,
                            [common, o] { return run(*common, *o); });
  c->add_option("files", o->paths, "golden files, or folders of them")->required();
  c->add_option("--dump", o->dump, "write what was computed to this folder, under the golden's names");
  c->add_flag("--verbose,-v", o->verbose, "one line per tensor");
}

}  // namespace vkflux::cli
