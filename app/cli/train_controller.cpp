#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <cmath>
#include <filesystem>
#include <optional>

#include "app/cli/cli.h"
#include "app/cli/controller_session.h"
#include "app/cli/numbers.h"
#include "app/cli/profile.h"
#include "app/controller_report.h"
#include "model/io/file.h"
#include "model/io/json.h"
#include "model/routing/controller.h"
#include "train/controller/controller_trainer.h"

namespace vkflux::cli {
namespace {

namespace fs = std::filesystem;

struct Options {
  ControllerSessionArgs session;
  ControllerTrainOptions train;
  ProfileArgs profile;
  ControllerConfig net;
  std::string out, noise = "logistic", floor_on = "quality";
  bool fresh = false, accept_changed = false, whole_run = false;
  int64_t stop_after = 0, save_every = 10;
  const CLI::App* command = nullptr;
};

ControllerNet make_net(Device& device, const Options& o, int64_t layers) {
  ControllerConfig config = o.net;
  config.layers = layers;
  ControllerNet net(config);
  const std::vector<Param> params = parameters(net);
  allocate(params, device);
  initialise(params, controller_init(config), o.train.seed);
  return net;
}

std::string fixed(double x, int digits = 4) {
  return fmt::format("{:.{}f}", x, digits);
}

ControllerReport make_report(const Options& o, const ControllerSession& s, const ControllerNet& net,
                             const ControllerTrainer& trainer) {
  ControllerReport r;
  r.title = "A routing controller for " + io::last_name(o.session.model);
  r.rows = read_metrics((fs::path(o.out) / "metrics.jsonl").string());
  r.target_share = o.train.policy.reward.target_ttr_ratio;
  r.eligible = s.eligible;
  const std::vector<RouteInput>& inputs = s.task->inputs();
  const std::vector<float> logits = net.forward(inputs).to_host();
  for (size_t n = 0; n < inputs.size(); ++n) {
    r.sigmas.push_back(inputs[n].sigma);
    r.full.emplace_back();
    for (size_t l = 0; l < s.eligible.size(); ++l) {
      r.full.back().push_back(
          static_cast<float>(logistic(static_cast<double>(logits[n * s.eligible.size() + l]))));
    }
  }
  const PolicyTrainOptions& p = o.train.policy;
  r.facts = {
      {"device", s.device->caps().device_name},
      {"iterations", fmt::format("{} of {}", trainer.steps_done(), o.train.iterations)},
      {"pictures", fmt::format("{} prompts x {} seeds, {} sharing a plan, {} plans an iteration",
                               s.prompts.size(), o.session.seeds, o.session.images, o.train.plans)},
      {"sampling", fmt::format("{} steps, true guidance {}, {}x{} pixels", inputs.size(), inputs[0].cfg,
                               inputs[0].width, inputs[0].height)},
      {"layers", fmt::format("{} of {} with a ready student", s.eligible_layers(), s.eligible.size())},
      {"reward", fmt::format("on {}; efficiency {}, entropy {}", o.session.reward_on, p.reward.lambda_eff,
                             p.reward.lambda_entropy)},
      {"optimiser", fmt::format("AdamW, learning rate {}, clip {}, seed {}", p.lr, p.clip, o.train.seed)}};
  for (const char* name : {"reward", "reward_baseline", "loss", "ttr_eligible", "entropy"}) {
    const auto it = trainer.latest().find(name);
    if (it != trainer.latest().end()) r.facts.emplace_back("last " + std::string(name), fixed(it->second));
  }
  return r;
}

void finish(const Options& o, const ControllerSession& s, ControllerNet& net,
            const ControllerTrainer& trainer) {
  save_controller((fs::path(o.out) / "controller.safetensors").string(), net, s.pipeline->info().layout,
                  {{"iteration", std::to_string(trainer.steps_done())},
                   {"target_ttr_ratio", fmt::format("{}", o.train.policy.reward.target_ttr_ratio)}});
  io::atomic_write((fs::path(o.out) / "report.html").string(),
                   controller_report_html(make_report(o, s, net, trainer)));
}

void print_result(const Common& common, const Options& o, const ControllerTrainer& trainer) {
  if (!common.json) {
    print_out("{}\n", (fs::path(o.out) / "controller.safetensors").string());
    return;
  }
  nlohmann::ordered_json j{{"iterations", trainer.steps_done()},
                           {"out", o.out},
                           {"reward_baseline", trainer.policy().baseline().value()}};
  for (const auto& [name, value] : trainer.latest()) j[name] = value;
  print_out("{}\n", io::json_text(j));
}

int train(const Common& common, const Options& o, ControllerSession& s) {
  ControllerNet net = make_net(*s.device, o, static_cast<int64_t>(s.eligible.size()));
  ControllerTrainer trainer(net, s.pipeline->info().layout, s.eligible, *s.task, o.train);
  s.describe(trainer.inputs());
  if (o.accept_changed) trainer.inputs().accept_changes();
  const RunLoopOptions loop{{o.out},
                            o.fresh,
                            o.save_every,
                            o.stop_after,
                            "iterations",
                            settings_of(*o.command),
                            {"controller.safetensors", "report.html"}};
  std::optional<Progress> progress;
  bool anew = false, warned = false;
  const auto started = [&] {
    anew = !trainer.finished();
    progress.emplace("controller", o.train.iterations, trainer.steps_done());
  };
  const auto after_step = [&] {
    const NamedValues& m = trainer.latest();
    progress->update(trainer.steps_done(),
                     fmt::format("reward {:.4f} (mean {:.4f}) student {:.0f}%", m.at("reward"),
                                 m.at("reward_baseline"), 100 * m.at("ttr_eligible")));
    if (warned || s.task->refusals().empty()) return;
    spdlog::warn("a student that the plan asked for didn't serve: {}", s.task->refusals().front());
    warned = true;
  };
  if (!run_to_end(trainer, loop, interrupted, started, after_step)) return interrupted() ? kInterrupted : kOk;
  progress.reset();
  if (anew) trainer.complete();
  finish(o, s, net, trainer);
  print_result(common, o, trainer);
  return kOk;
}

void check_files(const Options& o) {
  FileUse files;
  declare_inputs(o.session, files);
  std::vector<std::string> names = RunFolder::own_files();
  names.insert(names.end(), {"controller.safetensors", "report.html"});
  files.runs_in("--out", o.out, names, {"events"});
  files.writes("--profile-trace", o.profile.trace);
  files.check();
}

int run(const Common& common, Options o) {
  check_files(o);
  o.train.noise = parse_action_noise(o.noise);
  o.train.policy.floor_on = parse_floor_on(o.floor_on);
  o.train.sigma_aware = !o.whole_run;
  if (o.whole_run) o.train.plans = 1;
  const RunLock lock({o.out});
  ControllerSession session(common, o.session);
  const ProfileSession profile(*session.device, o.profile);
  spdlog::info("{} of {} layers may use their student; {} pictures in groups of {}",
               session.eligible_layers(), session.eligible.size(), session.task->pictures(),
               o.session.images);
  return train(common, o, session);
}

void add_policy_options(CLI::App& c, Options& o) {
  PolicyTrainOptions& p = o.train.policy;
  c.add_option("--target-ttr-ratio", p.reward.target_ttr_ratio, "wanted share of decisions for the student")
      ->capture_default_str()
      ->transform(real(0, 1));
  c.add_option("--lambda-eff", p.reward.lambda_eff,
               "weight of the penalty for missing the target share of students")
      ->capture_default_str()
      ->transform(real(0, 100));
  c.add_option("--lambda-entropy", p.reward.lambda_entropy,
               "weight of the entropy bonus, which rewards undecided policies")
      ->capture_default_str()
      ->transform(real(0, 1));
  c.add_flag("--entropy-gradient,!--no-entropy-gradient", p.entropy_gradient,
             "follow the entropy's own gradient, which keeps the policy from settling too early (default);\n"
             "without it the entropy only shifts the reward");
  c.add_flag("--exact-efficiency,!--drawn-efficiency", p.exact_efficiency,
             "follow the exact gradient of the expected miss of the target share (default), or that of\n"
             "the shares which were drawn: the same aim, but noisier than what the pictures say");
  c.add_option("--lr", p.lr, "learning rate (AdamW)")->capture_default_str()->transform(real(1e-7, 1));
  c.add_option("--clip", p.clip, "largest gradient norm, 0 = off")
      ->capture_default_str()
      ->transform(real(0, 100));
  c.add_option("--baseline-floor", p.floor, "the reward's baseline is kept from following quality below this")
      ->capture_default_str()
      ->transform(real(-10, 1));
  c.add_option("--baseline-floor-on", o.floor_on,
               "what the floor is compared with: quality (and only while its mean is above the floor),\n"
               "reward (the whole of it) or off")
      ->capture_default_str()
      ->check(CLI::IsMember({"quality", "reward", "off"}));
  c.add_option("--action-noise", o.noise,
               "how decisions are drawn: logistic (exactly by their probability) or gumbel (one Gumbel\n"
               "variate, which leans to full attention)")
      ->capture_default_str()
      ->check(CLI::IsMember({"logistic", "gumbel"}));
  c.add_flag("--whole-run", o.whole_run, "one decision for all steps of a picture instead of one for each");
  c.add_option("--embed-dim", o.net.embed_dim, "width of the controller's embeddings")
      ->capture_default_str()
      ->transform(whole(1, kMostWidth));
  c.add_option("--hidden-dim", o.net.hidden_dim, "width of the controller's hidden layers")
      ->capture_default_str()
      ->transform(whole(1, kMostWidth));
}

}  // namespace

void add_train_controller(CLI::App& app) {
  auto common = std::make_shared<Common>();
  auto o = std::make_shared<Options>();
  o->train.policy.lr = 1e-3;
  o->train.policy.reward.lambda_entropy = 0.03;
  o->train.policy.entropy_gradient = o->train.policy.exact_efficiency = true;
  o->train.plans = 4;
  o->train.log_every = 1;
  CLI::App* c = add_command(
      app, "train-controller",
      "learn which layers may use their student at which noise level (needs vkflux distill's students)",
      "vkflux train-controller --model models/emoji --ttr models/emoji/ttr.safetensors \\\n"
      "    --prompts docs/miniature_prompts.txt --out runs/controller",
      common, [common, o] { return run(*common, *o); });
  o->command = c;
  add_controller_options(*c, o->session);
  c->add_option("--out", o->out, "run folder: checkpoint, metrics, report and controller.safetensors")
      ->required();
  c->add_option("--iterations", o->train.iterations, "policy updates")
      ->capture_default_str()
      ->transform(whole(1, kMostSteps));
  c->add_option("--plans", o->train.plans,
                "plans played in an iteration on the same pictures; from 2 on they are each other's baseline")
      ->capture_default_str()
      ->transform(whole(1, kMostPictures));
  add_policy_options(*c, *o);
  add_profile_options(*c, o->profile);
  c->add_option("--seed", o->train.seed, "seed of the controller's initial weights and of every decision")
      ->capture_default_str()
      ->transform(any_seed());
  c->add_flag("--fresh", o->fresh, "start over: what an earlier run wrote to the folder is removed first");
  c->add_flag(
      "--accept-changed-inputs", o->accept_changed,
      "go on from the checkpoint although model, students, prompts or settings aren't those that it was\n"
      "made with");
  c->add_option("--stop-after", o->stop_after,
                "stop after this iteration with a checkpoint, as if interrupted")
      ->transform(whole(0, kMostSteps));
  c->add_option("--save-every", o->save_every, "iterations between checkpoints")
      ->capture_default_str()
      ->transform(whole(1, kMostSteps));
  c->add_option("--log-every", o->train.log_every,
                "iterations between metrics; the first and last are always written")
      ->capture_default_str()
      ->transform(whole(1, kMostSteps));
}

}  // namespace vkflux::cli
