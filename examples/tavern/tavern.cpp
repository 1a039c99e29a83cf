// SPDX-License-Identifier: Apache-2.0
// A game that shows it: six characters talk at once while the window keeps 60 frames a second, because the engine gets 2 ms of each.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <chrono>
#include <fstream>
#include <iostream>
#include <iterator>
#include <thread>

#include "picture.h"

namespace {

using namespace tavern;
using Clock = std::chrono::steady_clock;

struct Options {
  std::string model, font = "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf", picture, game = "tavern.save";
  uint32_t budget_us = 2000, threads = 0;
  double seconds = 0;
  uint64_t seed = 1;
  bool check = false;
};

// Saves in the middle of the sentences, lets them go on, loads, and sees that they go on as they did.
class Rehearsal {
 public:
  void frame(Guests& guests, double now, double seconds) {
    if (saved_.empty() && now > seconds * 0.35 && n_speaking(guests) >= 3) {
      saved_ = guests.save();
      for (size_t i = 0; i < Guests::n; ++i)
        if (const Guest& guest = guests.all()[i]; guest.speaking) lines_[i] = {guest.turn, guest.json.size(), {}, {}};
    } else if (!saved_.empty() && !loaded_ && now > seconds * 0.65) {
      refuses_damage_ = refuses(guests, now);
      guests.load(saved_, now);
      loaded_ = true;
    }
    for (size_t i = 0; i < Guests::n; ++i)
      if (const Guest& guest = guests.all()[i]; guest.turn == lines_[i].turn) (loaded_ ? lines_[i].second : lines_[i].first) = guest.json;
  }
  // Of the sentences that went on after both: how many there are, how many are alike as far as both came.
  size_t n_compared() const { return static_cast<size_t>(std::count_if(lines_.begin(), lines_.end(), [](const Twice& l) { return l.went_on(); })); }
  size_t n_alike() const { return static_cast<size_t>(std::count_if(lines_.begin(), lines_.end(), [](const Twice& l) { return l.went_on() && l.alike(); })); }
  size_t bytes() const { return saved_.size(); }
  bool refuses_damage() const { return refuses_damage_; }

 private:
  // A damaged game, and one that is cut off, change nothing.
  bool refuses(Guests& guests, double now) const {
    std::string damaged = saved_;
    damaged[damaged.size() - 100] ^= 1;
    for (const std::string& bad : {damaged, saved_.substr(0, saved_.size() / 2)}) {
      const std::string before = guests.save();
      try {
        guests.load(bad, now);
        return false;
      } catch (const std::exception&) {
      }
      if (guests.save() != before) return false;
    }
    return true;
  }
  struct Twice {
    uint32_t turn = 0;
    size_t at_save = 0;
    std::string first, second;
    bool went_on() const { return std::min(first.size(), second.size()) > at_save; }
    bool alike() const {
      const size_t n = std::min(first.size(), second.size());
      return first.compare(0, n, second, 0, n) == 0;
    }
  };
  static size_t n_speaking(const Guests& guests) {
    size_t n = 0;
    for (const Guest& guest : guests.all()) n += guest.speaking && guest.json.size() > 8;
    return n;
  }
  std::string saved_;
  std::array<Twice, Guests::n> lines_;
  bool loaded_ = false, refuses_damage_ = false;
};

int verdict(const std::deque<Step>& steps, const Guests& guests, const Rehearsal& rehearsal, double seconds) {
  size_t kept = 0;
  uint32_t most = 0;
  double waited = 0;
  for (const Step& step : steps) {
    kept += step.kept();
    most = std::max(most, step.used_us);
    waited += step.waited_us;
  }
  const double share = static_cast<double>(kept) / static_cast<double>(steps.size());
  std::printf("%zu frames, %.1f a second; %u lines, %.1f tokens/s\n", steps.size(), static_cast<double>(steps.size()) / seconds, guests.n_lines(),
              static_cast<double>(guests.n_tokens()) / seconds);
  std::printf("%.2f %% of the steps within the budget and one cut of the work, the longest %.2f ms; %.1f ms of them all waited for a core that others had\n", 100 * share,
              most / 1e3, waited / 1e3);
  std::printf("saved in the middle of sentences (%zu bytes) and loaded: %zu of %zu went on alike; damaged ones were %s\n", rehearsal.bytes(), rehearsal.n_alike(), rehearsal.n_compared(),
              rehearsal.refuses_damage() ? "refused" : "NOT refused");
  const bool good = share >= 0.999 && guests.n_lines() > 0 && rehearsal.refuses_damage() && rehearsal.n_compared() > 0 && rehearsal.n_alike() == rehearsal.n_compared();
  std::printf(good ? "ok\n" : "FAILED\n");
  return good ? 0 : 1;
}

// False when the player leaves.
bool handle_events(Guests& guests, const Options& o, double now, std::string& status) {
  for (SDL_Event event; SDL_PollEvent(&event);) {
    if (event.type == SDL_QUIT) return false;
    if (event.type != SDL_KEYDOWN) continue;
    if (event.key.keysym.sym == SDLK_ESCAPE) return false;
    if (event.key.keysym.sym == SDLK_F5) {
      const std::string saved = guests.save(), part = o.game + ".part";
      std::ofstream file(part, std::ios::binary);
      file << saved;
      file.close();
      status = file && std::rename(part.c_str(), o.game.c_str()) == 0 ? "saved, " + std::to_string(saved.size()) + " bytes" : "cannot write " + o.game;
    }
    if (event.key.keysym.sym == SDLK_F9) {
      std::ifstream file(o.game, std::ios::binary);
      status = file ? "loaded" : "there is no " + o.game;
      try {
        if (file) guests.load({std::istreambuf_iterator<char>(file), {}}, now);
      } catch (const std::exception& e) {
        status = "cannot load " + o.game + ": " + e.what();
      }
    }
  }
  return true;
}

int play(const Options& o) {
  auto desc = gptq::make<gptq_runtime_desc>();
  // A core is left to the frames and to the screen: a thread that waits for one holds up the step.
  desc.threads = o.threads ? o.threads : std::max(2u, std::thread::hardware_concurrency()) - 1;
  const gptq::Runtime runtime(desc);
  const gptq::Model model(runtime, o.model);
  Guests guests(model, o.seed);
  Picture picture(o.font);
  std::deque<Step> steps;
  Rehearsal rehearsal;
  std::string status;
  const auto begin = Clock::now();
  auto next_frame = begin;
  double now = 0;
  bool pictured = o.picture.empty();
  // A slow machine is given time to end a line, and to compute again what was loaded.
  const auto is_over = [&] { return o.seconds && now >= (o.check && !(rehearsal.n_compared() && guests.n_lines()) ? 8 : 1) * o.seconds; };
  while (!is_over()) {
    now = std::chrono::duration<double>(Clock::now() - begin).count();
    if (!handle_events(guests, o, now, status)) break;
    steps.push_back(guests.frame(o.budget_us, now));
    if (o.check) rehearsal.frame(guests, now, o.seconds);
    char figures[96];
    std::snprintf(figures, sizeof figures, "%.0f frames a second, %.0f tokens a second   ", static_cast<double>(steps.size()) / std::max(now, 1e-3),
                  static_cast<double>(guests.n_tokens()) / std::max(now, 1e-3));
    picture.draw(guests, steps, figures + status);
    if (!pictured && now > o.seconds * 0.6) {
      picture.save(o.picture);
      pictured = true;
    }
    next_frame = std::max(next_frame + std::chrono::microseconds(16667), Clock::now());
    SDL_Delay(static_cast<Uint32>(std::chrono::duration_cast<std::chrono::milliseconds>(next_frame - Clock::now()).count()));
  }
  return o.check ? verdict(steps, guests, rehearsal, now) : 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  CLI::App app("Six characters talk at once in a game that keeps its frame rate. A model of a hundred million parameters is enough.", "tavern");
  app.add_option("MODEL", o.model, "a .gptq file of a chat model")->required();
  app.add_option("--budget-us", o.budget_us, "microseconds of a frame that the engine gets")->capture_default_str();
  app.add_option("--seconds", o.seconds, "ends after so long (default: when the window is closed)");
  app.add_option("--picture", o.picture, "writes the window as a PNG shortly after half of --seconds")->needs("--seconds");
  app.add_flag("--check", o.check, "saves and loads by itself, and fails unless sentences go on alike and 99.9 % of the steps keep the budget and one cut of the work")
      ->needs("--seconds");
  app.add_option("--game", o.game, "where F5 saves and F9 loads")->capture_default_str();
  app.add_option("--font", o.font, "a TrueType font")->capture_default_str();
  app.add_option("--seed", o.seed, "of what they say")->capture_default_str();
  app.add_option("-t,--threads", o.threads, "threads that compute (default: one less than there are cores)");
  CLI11_PARSE(app, argc, argv);
  try {
    return play(o);
  } catch (const std::exception& error) {
    std::cerr << "tavern: " << error.what() << "\n";
    return 1;
  }
}
