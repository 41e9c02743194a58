// A learnt policy against random routing with the same student share, on the same pictures.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <cmath>

#include "app/cli/cli.h"
#include "app/cli/controller_session.h"
#include "model/io/file.h"
#include "model/routing/controller.h"

namespace vkflux::cli {
namespace {

struct Options {
  ControllerSessionArgs session;
  std::string controller, policy = "ranked", out;
  std::vector<double> speeds{0.25, 0.5, 0.75}, shares{0, 0.25, 0.5, 0.75, 1};
  double temperature = 1;
  int64_t repeats = 2;
  uint64_t seed = 0;
};

struct Statistics {
  double mean = 0, error = NAN;  // standard error of the mean; one value tells none
};

Statistics statistics(const std::vector<double>& x) {
  Statistics s;
  const auto n = static_cast<double>(x.size());
  for (const double v : x) s.mean += v / n;
  double squares = 0;
  for (const double v : x) squares += (v - s.mean) * (v - s.mean);
  if (x.size() > 1) s.error = std::sqrt(squares / (n - 1) / n);
  return s;
}

nlohmann::ordered_json json_of(const Statistics& s) {
  nlohmann::ordered_json j{{"mean", s.mean}};
  if (std::isfinite(s.error)) j["standard_error"] = s.error;
  return j;
}

/// What a router did on all groups of pictures, one value for each run.
struct Played {
  std::vector<double> loss, share;
  std::map<std::string, std::vector<double>> terms;
};

Played play(const ControllerSession& s, Router& router, const Options& o, Progress& progress, int64_t& done) {
  Played out;
  const auto able = static_cast<double>(s.eligible_layers());
  for (int64_t group = 0; group < s.task->groups(); ++group) {
    for (int64_t repeat = 0; repeat < o.repeats; ++repeat) {
      check_interrupted("the evaluation");
      const auto decisions =
          router.plan(s.task->inputs(), o.seed + static_cast<uint64_t>(group * o.repeats + repeat));
      double students = 0;
      for (const RouteDecision& d : decisions)
        for (size_t l = 0; l < d.student.size(); ++l) students += d.student[l] && s.eligible[l];
      const PlayedQuality q = s.task->play_group(group, decisions);
      out.loss.push_back(q.loss);
      out.share.push_back(students / (able * static_cast<double>(decisions.size())));
      for (const auto& [name, value] : q.terms) out.terms[name].push_back(value);
      progress.update(++done);
    }
  }
  return out;
}

nlohmann::ordered_json json_of(const Played& p) {
  nlohmann::ordered_json j{{"runs", p.loss.size()},
                           {"student_share", statistics(p.share).mean},
                           {"loss", json_of(statistics(p.loss))}};
  for (const auto& [name, values] : p.terms) j[name] = json_of(statistics(values));
  return j;
}

/// Run by run on the same pictures, so that what the pictures differ in cancels.
Statistics difference(const Played& a, const Played& b) {
  std::vector<double> d;
  for (size_t i = 0; i < a.loss.size(); ++i) d.push_back(a.loss[i] - b.loss[i]);
  return statistics(d);
}

nlohmann::ordered_json evaluate(const ControllerSession& s, const std::shared_ptr<ControllerNet>& net,
                                const Options& o) {
  const auto settings = static_cast<int64_t>(2 * o.speeds.size() + o.shares.size());
  Progress progress("evaluating", settings * s.task->groups() * o.repeats);
  int64_t done = 0;
  nlohmann::ordered_json learnt = nlohmann::ordered_json::array(), random = learnt;
  for (const double speed : o.speeds) {
    const PolicyOptions policy = policy_at(parse_policy(o.policy), speed, o.temperature);
    ControllerRouter router(net, policy, s.eligible);
    const Played ours = play(s, router, o, progress, done);
    const double share = statistics(ours.share).mean;
    RandomRouter chance(std::min(1.0, std::max(0.0, share)), s.eligible);
    const Played theirs = play(s, chance, o, progress, done);
    const Statistics d = difference(ours, theirs);
    learnt.push_back({{"quality_speed", speed},
                      {"controller", json_of(ours)},
                      {"random", json_of(theirs)},
                      {"difference", json_of(d)}});
  }
  for (const double share : o.shares) {
    RandomRouter router(share, s.eligible);
    nlohmann::ordered_json j{{"share", share}};
    j.update(json_of(play(s, router, o, progress, done)));
    random.push_back(j);
  }
  return {{"controller", learnt}, {"random", random}};
}

void print_table(const nlohmann::ordered_json& j) {
  print_out("quality_speed  student share  loss of the controller  loss of random routing  difference\n");
  for (const auto& row : j.at("controller")) {
    const auto text = [](const nlohmann::ordered_json& s) {
      const std::string mean = fmt::format("{:.4f}", s.at("mean").get<double>());
      return s.contains("standard_error")
                 ? fmt::format("{} +- {:.4f}", mean, s.at("standard_error").get<double>())
                 : mean;
    };
    print_out("{:>13.2f}  {:>13.3f}  {:>22}  {:>22}  {}\n", row.at("quality_speed").get<double>(),
              row.at("controller").at("student_share").get<double>(), text(row.at("controller").at("loss")),
              text(row.at("random").at("loss")), text(row.at("difference")));
  }
}

int run(const Common& common, const Options& o) {
  parse_policy(o.policy);
  for (const double x : o.speeds) {
    if (!(x >= 0 && x <= 1))
      throw Error(ErrorCode::invalid_argument, fmt::format("--quality-speed {}: expected 0 to 1", x));
  }
  for (const double x : o.shares) {
    if (!(x >= 0 && x <= 1))
      throw Error(ErrorCode::invalid_argument, fmt::format("--shares {}: expected 0 to 1", x));
  }
  const ControllerSession session(common, o.session);
  const auto net = load_controller(*session.device, o.controller, session.pipeline->info().layout);
  nlohmann::ordered_json j{{"model", o.session.model},
                           {"ttr", o.session.ttr},
                           {"controller_file", o.controller},
                           {"prompts", session.prompts.size()},
                           {"pictures", session.task->pictures()},
                           {"pictures_per_run", o.session.images},
                           {"policy", o.policy},
                           {"reward_on", o.session.reward_on}};
  j.update(evaluate(session, net, o));
  if (!o.out.empty()) io::atomic_write(o.out, j.dump(1) + "\n");
  if (common.json) {
    print_out("{}\n", j.dump(1));
  } else {
    print_table(j);
  }
  return kOk;
}

}  // namespace

void add_evaluate_controller(CLI::App& app) {
  auto common = std::make_shared<Common>();
  auto o = std::make_shared<Options>();
  o->session.picture_seed = 1'000'000;  // noise that no training saw
  CLI::App* c = add_command(
      app, "evaluate-controller",
      "compare a learnt policy with random routing of the same student share, on pictures of one's choice",
      "vkflux evaluate-controller --model models/emoji --ttr models/emoji/ttr.safetensors \\\n"
      "    --controller runs/controller/controller.safetensors --prompts docs/miniature_heldout_prompts.txt",
      common, [common, o] { return run(*common, *o); });
  add_controller_options(*c, o->session);
  c->add_option("--controller", o->controller, "made by vkflux train-controller")->required();
  c->add_option("--quality-speed", o->speeds, "settings of the knob, 0 (full attention) to 1 (fastest)")
      ->capture_default_str();
  c->add_option("--shares", o->shares, "student shares of further random routings")->capture_default_str();
  c->add_option("--policy", o->policy, "ranked, stochastic or threshold (see vkflux sample --help)")
      ->capture_default_str();
  c->add_option("--policy-temperature", o->temperature, "of the stochastic policy")
      ->capture_default_str()
      ->check(CLI::Range(1e-3, 10.0));
  c->add_option("--repeats", o->repeats, "plans drawn for every group of pictures")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  c->add_option("--seed", o->seed, "of the drawn plans")->capture_default_str();
  c->add_option("--out", o->out, "also write the figures to this JSON file");
}

}  // namespace vkflux::cli
