#include <filesystem>

#include "app/verify/case.h"
#include "model/io/json.h"
#include "vk/error.h"

namespace vkflux::verify {
namespace {

template <class Fn>
struct Row {
  const char* prefix;
  Fn run;
};

constexpr Row<CaseFn> kCases[] = {
    {"ops_", run_ops},
    {"ops_adamw", run_adamw},
    {"flux1_double_block", run_flux1_block},
    {"flux1_single_block", run_flux1_block},
    {"flux1_full", run_flux1_full},
    {"flux1_denoise", run_flux1_denoise},
    {"flux1_ids", run_flux1_ids},
    {"flux1_modules", run_flux1_modules},
    {"flux1_rope_timestep", run_flux1_rope},
    {"flux2_full", run_flux2_full},
    {"flux2_denoise", run_flux2_denoise},
    {"flux2_ids", run_flux2_ids},
    {"flux2_rope", run_flux2_rope},
    {"vae_flux1", run_vae},
    {"vae_flux2", run_vae},
    {"clip_text", run_text_encoder},
    {"t5_encoder", run_text_encoder},
    {"flux1_rope", run_flux1_rope},
    {"ttr_kernel", run_ttr_kernel},
    {"ttr_landmark_branch", run_ttr_landmark_branch},
    {"ttr_layer", run_ttr_layer},
    {"ttr_scalar_embedding", run_ttr_scalar_embedding},
    {"ttr_teacher_attention", run_ttr_teacher_attention},
    {"ttr_distill", run_ttr_distill},
    {"ttr_controller", run_ttr_controller},
    {"ttr_policy", run_ttr_policy},
    {"ttr_threshold", run_ttr_threshold},
    {"ttr_reinforce", run_ttr_reinforce},
    {"ttr_sigma_policy", run_ttr_sigma_policy},
    {"ttr_reward_loss", run_ttr_reward_loss},
};
constexpr Row<TableFn> kTables[] = {
    {"flux1_schedule", run_flux1_schedule},         {"flux2_schedule", run_flux2_schedule},
    {"ttr_landmarks", run_ttr_landmarks},           {"ttr_reward_tables", run_ttr_reward_tables},
    {"ttr_readiness", run_ttr_readiness},           {"ttr_routing", run_ttr_routing},
    {"ttr_runtime_tables", run_ttr_runtime_tables}, {"ttr_sweep_utils", run_ttr_sweep_utils},
    {"ttr_comet_keys", run_ttr_comet_keys},
};

constexpr uint64_t kMaxTable = 64ull << 20;  // bytes

template <class Rows>
auto longest(const Rows& rows, const std::string& kind) -> decltype(rows[0].run) {
  decltype(rows[0].run) found = nullptr;
  size_t best = 0;
  for (const auto& row : rows) {
    const std::string prefix(row.prefix);
    if (kind.rfind(prefix, 0) == 0 && prefix.size() > best) {
      best = prefix.size();
      found = row.run;
    }
  }
  return found;
}

}  // namespace

CaseFn find_case(const std::string& kind) {
  return longest(kCases, kind);
}
TableFn find_table(const std::string& kind) {
  return longest(kTables, kind);
}

Report run_file(Device& device, const std::string& path, const std::string& dump_folder) {
  Report report{path, "", "", {}};
  try {
    if (std::filesystem::path(path).extension() == ".json") {
      const nlohmann::json table(
          io::parse_json(io::read_file(path, kMaxTable), path, io::WholeNumbers::keep_digits));
      report.kind = required<std::string>(table, "case");
      const TableFn run = find_table(report.kind);
      if (!run)
        throw Error(ErrorCode::unsupported,
                    "this version doesn't know tables of the kind '" + report.kind + "'");
      run(device, table, report);
      return report;
    }
    Case c(device, path);
    report.kind = c.kind();
    const CaseFn run = find_case(report.kind);
    if (!run)
      throw Error(ErrorCode::unsupported,
                  "this version doesn't know cases of the kind '" + report.kind + "'");
    run(c);
    if (!dump_folder.empty()) c.dump(dump_folder);
    return c.compare();
  } catch (const Error& e) {
    if (e.code() == ErrorCode::device_lost || e.code() == ErrorCode::cancelled) throw;
    report.error = e.what();
  } catch (const std::exception& e) {
    report.error = e.what();
  }
  return report;
}

}  // namespace vkflux::verify
