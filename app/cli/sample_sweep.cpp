// Many pictures of `vkflux sample`: every prompt with every seed under every point of the sweeps.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "app/cli/sample.h"
#include "app/contact_sheet.h"
#include "app/sweep/seeds.h"
#include "app/sweep/table.h"
#include "model/io/file.h"
#include "model/io/json.h"

namespace vkflux::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr size_t kColumns = 8, kManyPictures = 64;
constexpr int kLargeCell = 768, kSmallCell = 192;

struct Base {
  std::string prompt;
  uint64_t seed;
};

struct Plan {
  std::vector<Base> bases;
  std::vector<SweepList> lists;
  std::vector<SweepPoint> points;
  bool many_prompts = false;
};

bool needs_routing(const std::string& name) {
  return name == "quality-speed" || name == "policy-temperature";
}

Plan make_plan(const SampleArgs& args) {
  Plan plan;
  const std::vector<std::string>& prompts = args.texts;
  const std::vector<uint64_t> seeds =
      args.seeds.empty() ? std::vector<uint64_t>{args.seed} : parse_seeds(args.seeds);
  plan.many_prompts = prompts.size() > 1;
  for (const std::string& prompt : prompts) {
    for (uint64_t seed : seeds) plan.bases.push_back({prompt, seed});
  }
  for (const std::string& text : args.sweeps) {
    plan.lists.push_back(parse_sweep(text));
    const std::string& name = plan.lists.back().name;
    if (needs_routing(name) && args.routing.ttr.empty())
      throw Error(ErrorCode::invalid_argument, fmt::format("--sweep {} needs --ttr", name));
    if (name == "policy-temperature" && parse_policy(args.routing.policy) != PolicyKind::stochastic)
      throw Error(ErrorCode::invalid_argument, "--sweep policy-temperature needs --policy stochastic");
    if (name == "strength" && args.pictures.init.empty())
      throw Error(ErrorCode::invalid_argument, "--sweep strength needs a picture to start from: give --init");
    const bool fixed = (name == "steps" && args.steps) || (name == "cfg" && args.cfg >= 0) ||
                       (name == "guidance" && args.guidance >= 0) || (name == "size" && !args.size.empty()) ||
                       (name == "seed" && args.seed) ||
                       (name == "quality-speed" && args.routing.quality_speed);
    if (fixed) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("--{} and --sweep {}: give only one of them", name, name));
    }
    if (name == "seed" && !args.seeds.empty())
      throw Error(ErrorCode::invalid_argument, "--sweep seed and --seeds: give only one of them");
  }
  plan.points = sweep_points(plan.lists, parse_sweep_mode(args.sweep_mode), plan.bases.size());
  return plan;
}

void apply(Shot& shot, const std::string& name, const SweepValue& v) {
  GenerateRequest& r = shot.request;
  if (name == "seed") r.seed = v.seed;
  if (name == "steps") r.steps = static_cast<int64_t>(v.number);
  if (name == "cfg") r.cfg = static_cast<float>(v.number);
  if (name == "guidance") r.guidance = static_cast<float>(v.number);
  if (name == "strength") r.strength = v.number;
  if (name == "quality-speed") shot.quality_speed = v.number;
  if (name == "policy-temperature") shot.temperature = v.number;
  if (name == "size") {
    r.width = v.width;
    r.height = v.height;
  }
}

Shot make_shot(const SampleSession& session, const GenerateRequest& base, const Plan& plan,
               const SweepPoint& point) {
  Shot shot;
  shot.request = base;
  shot.request.prompts = {plan.bases[point.base].prompt};
  shot.request.seed = plan.bases[point.base].seed;
  shot.request.time_steps = true;
  if (session.routing) {
    shot.quality_speed = session.routing->default_quality_speed();
    shot.temperature = session.routing->args().temperature;
  }
  for (size_t k = 0; k < plan.lists.size(); ++k) {
    const SweepValue& value = plan.lists[k].values[point.values[k]];
    apply(shot, plan.lists[k].name, value);
    shot.labels.push_back(plan.lists[k].name + " " + value.text);
  }
  if (std::none_of(plan.lists.begin(), plan.lists.end(), [](const auto& l) { return l.name == "seed"; }))
    shot.labels.insert(shot.labels.begin(), fmt::format("seed {}", shot.request.seed));
  if (plan.many_prompts) shot.labels.insert(shot.labels.begin(), shot.request.prompts[0]);
  return shot;
}

/// What full attention makes of a shot depends on everything but the knob.
std::string full_key(const Shot& s) {
  const GenerateRequest& r = s.request;
  return fmt::format("{}\n{} {} {} {} {} {} {}", r.prompts[0], r.seed, r.steps, r.cfg.value_or(-1),
                     r.guidance.value_or(-1), r.width, r.height, r.strength.value_or(-1));
}

/// Flat: one row of the table.
Json row_of(const std::string& path, const Drawn& d, const SampleArgs& args, int64_t layers) {
  Json row{{"file", path}};
  row.update(settings_json(d, args));
  const RunSummary s = summarise(d.run.reports, layers);
  row["step_ms"] = s.median_step_ms;
  row["denoise_s"] = d.run.timings.denoise_s;
  row["flops"] = s.flops;
  row["attention_flops"] = s.attention_flops;
  row["full_attention_flops"] = s.full_attention_flops;
  if (d.routed) {
    row["student_share"] = s.student_share;
    row["refused"] = s.refused;
  }
  return row;
}

std::string comparison_label(const Compared& c) {
  return std::isfinite(c.picture.psnr) ? fmt::format("{:.1f} dB", c.picture.psnr) : "as full";
}

class Sheet {
 public:
  explicit Sheet(size_t pictures) : largest_(pictures > kManyPictures ? kSmallCell : kLargeCell) {}
  void add(const RgbImage& image, std::vector<std::string> labels) {
    const io::Image8 p = to_image8(image);
    const int side = std::max(p.width, p.height);
    cells_.push_back({reduced(p, (side + largest_ - 1) / largest_), std::move(labels)});
  }
  void write(const std::string& path, size_t columns) const {
    io::write_png(path, contact_sheet(cells_, static_cast<int>(columns)));
  }

 private:
  int largest_;
  std::vector<SheetCell> cells_;
};

size_t sheet_columns(const Plan& plan) {
  const size_t last = plan.lists.empty() ? 1 : plan.lists.back().values.size();
  return last > 1 && last <= 2 * kColumns ? last : std::min(kColumns, plan.points.size());
}

/// A page with one line of pictures for each prompt and seed: full attention first, then every point and its
/// difference.
class Page {
 public:
  explicit Page(const Plan& plan) : plan_(plan) {}
  void add(size_t base, const Drawn& d, const Drawn* full, const std::optional<Compared>& c, int64_t blocks) {
    if (rows_.empty() || base_ != base) {
      rows_.push_back({plan_.bases[base].prompt, {}});
      base_ = base;
      if (full)
        rows_.back().cells.push_back({encode(full->image), {"full attention", timing(*full, blocks)}});
    }
    std::vector<GalleryCell>& cells = rows_.back().cells;
    std::vector<std::string> lines(d.labels.begin() + (plan_.many_prompts ? 1 : 0), d.labels.end());
    lines.push_back(timing(d, blocks));
    cells.push_back({encode(d.image), lines});
    if (!full) return;
    cells.push_back({encode(difference_picture(d.image, full->image, kDifferenceGain)),
                     {fmt::format("difference × {}", kDifferenceGain), comparison_label(*c),
                      fmt::format("SSIM {:.3f}", c->picture.ssim)}});
  }
  const std::vector<GalleryRow>& rows() const { return rows_; }

 private:
  static std::string encode(const RgbImage& image) { return io::encode_png(to_image8(image)); }
  static std::string timing(const Drawn& d, int64_t blocks) {
    const RunSummary s = summarise(d.run.reports, blocks);
    std::string out = fmt::format("{:.1f} ms a step", s.median_step_ms);
    if (d.routed) out += fmt::format(", {:.0f}% students", 100 * s.student_share);
    return out;
  }

  const Plan& plan_;
  size_t base_ = 0;
  std::vector<GalleryRow> rows_;
};

struct Names {
  std::string sheet, csv, json;
};

Names default_names(const SampleArgs& args) {
  if (is_picture_name(args.out))
    return {with_suffix(args.out, "-sheet.png"), with_suffix(args.out, ".csv"),
            with_suffix(args.out, ".json")};
  const fs::path folder(args.out);
  return {(folder / "sheet.png").string(), (folder / "table.csv").string(), (folder / "table.json").string()};
}

/// Of what is written beside the pictures.
Names output_names(const SampleArgs& args) {
  Names names = default_names(args);
  if (!args.grid.empty()) names.sheet = args.grid;
  return names;
}

}  // namespace

void declare_sweep(const SampleArgs& args, FileUse& files) {
  const Plan plan = make_plan(args);
  const size_t n = plan.points.size();
  for (size_t i = 0; i < n; ++i)
    files.writes("--out", picture_path(args, i, n, plan.bases[plan.points[i].base].prompt));
  const Names names = output_names(args);
  files.writes(args.grid.empty() ? "--out" : "--grid", names.sheet);
  files.writes("--out", names.csv);
  files.writes("--out", names.json);
}

int run_sweep(SampleSession& session, const Common& common, const SampleArgs& args) {
  const Plan plan = make_plan(args);
  const GenerateRequest base = base_request(args);
  const int64_t blocks = session.layers();
  const size_t n = plan.points.size();
  std::vector<Json> rows;
  std::map<std::string, Drawn> full;
  Sheet sheet(n);
  Page page(plan);
  std::optional<Drawn> last;
  for (size_t i = 0; i < n; ++i) {
    Shot shot = make_shot(session, base, plan, plan.points[i]);
    shot.unfinished = unfinished_file(args);
    shot.model = args.model;
    const std::string what = fmt::format("picture {}/{}", i + 1, n);
    const Drawn* reference = nullptr;
    if (args.compare) {
      const auto [it, added] = full.try_emplace(full_key(shot));
      if (added) it->second = draw(session, shot, false, what + " full").at(0);
      reference = &it->second;
    }
    Drawn d = draw(session, shot, session.routing != nullptr, what).at(0);
    const std::string path = picture_path(args, i, n, d.prompt);
    save_picture(path, d, args);
    Json row = row_of(path, d, args, blocks);
    std::vector<std::string> labels = d.labels;
    std::optional<Compared> c;
    if (reference) {
      c = compare(d, *reference);
      row.update(compared_json(*c));
      row["full_step_ms"] = summarise(reference->run.reports, blocks).median_step_ms;
      labels.push_back(comparison_label(*c));
    }
    sheet.add(d.image, labels);
    if (!args.html.empty()) page.add(plan.points[i].base, d, reference, c, blocks);
    if (!common.json) print_out("{}\n", path);
    rows.push_back(std::move(row));
    d.image = {};
    d.latent.clear();
    last = std::move(d);
  }
  const Names names = output_names(args);
  const Json table{{"device", session.device->caps().device_name}, {"images", rows}};
  io::atomic_write(names.csv, csv_table(rows));
  io::atomic_write(names.json, io::json_text(table, 1) + "\n");
  if (!args.html.empty()) {
    io::atomic_write(args.html, comparison_html(gallery_info(session, *last, args), page.rows()));
    if (!common.json) print_out("{}\n", args.html);
  }
  sheet.write(names.sheet, sheet_columns(plan));
  if (common.json) {
    print_out("{}\n", io::json_text(table, 1));
  } else {
    print_out("{}\n{}\n{}\n", names.sheet, names.csv, names.json);
  }
  return kOk;
}

}  // namespace vkflux::cli
