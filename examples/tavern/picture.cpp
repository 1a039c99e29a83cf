// SPDX-License-Identifier: Apache-2.0
#include "picture.h"

#include <SDL_image.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace tavern {
namespace {

constexpr SDL_Color wood{43, 30, 24, 255}, table{74, 50, 36, 255}, cream{245, 232, 208, 255}, ink{38, 28, 22, 255}, faint{176, 150, 124, 255},
    ember{230, 126, 54, 255}, green{126, 176, 96, 255}, red{206, 70, 58, 255}, skin{224, 186, 152, 255};
constexpr SDL_Color coats[] = {{150, 60, 60, 255}, {92, 98, 108, 255}, {104, 122, 72, 255}, {76, 66, 120, 255}, {60, 52, 48, 255}, {44, 118, 124, 255}};
constexpr size_t frames_shown = 300;

}  // namespace

void fail(const std::string& what) { throw std::runtime_error(what + ": " + SDL_GetError()); }

Picture::Picture(const std::string& font) {
  if (SDL_Init(SDL_INIT_VIDEO) != 0) fail("cannot start SDL");
  if (TTF_Init() != 0) fail("cannot start SDL_ttf");
  window_.reset(SDL_CreateWindow("The Leaky Barrel", SDL_WINDOWPOS_CENTERED, SDL_WINDOWPOS_CENTERED, width, height, 0));
  if (!window_) fail("cannot open a window");
  renderer_.reset(SDL_CreateRenderer(window_.get(), -1, SDL_RENDERER_SOFTWARE));
  if (!renderer_) fail("cannot draw");
  SDL_SetRenderDrawBlendMode(renderer_.get(), SDL_BLENDMODE_BLEND);
  for (auto [to, size] : {std::pair{&small_, 13}, {&normal_, 17}, {&large_, 24}}) {
    to->reset(TTF_OpenFont(font.c_str(), size));
    if (!*to) fail("cannot read the font '" + font + "'");
  }
}

void Picture::fill(SDL_Rect rect, SDL_Color color) {
  SDL_SetRenderDrawColor(renderer_.get(), color.r, color.g, color.b, color.a);
  SDL_RenderFillRect(renderer_.get(), &rect);
}

void Picture::disc(int x, int y, int radius, SDL_Color color) {
  for (int row = -radius; row <= radius; ++row) {
    const int half = static_cast<int>(std::sqrt(static_cast<double>(radius * radius - row * row)));
    fill({x - half, y + row, 2 * half + 1, 1}, color);
  }
}

Picture::Owned<SDL_Surface> Picture::written(TTF_Font* font, const std::string& text, SDL_Color color, int wrap) const {
  Owned<SDL_Surface> surface(TTF_RenderUTF8_Blended_Wrapped(font, text.c_str(), color, static_cast<Uint32>(wrap)));
  if (!surface) fail("cannot write");
  return surface;
}

void Picture::place(SDL_Surface& surface, int x, int y) {
  const Owned<SDL_Texture> texture(SDL_CreateTextureFromSurface(renderer_.get(), &surface));
  const SDL_Rect to{x, y, surface.w, surface.h};
  SDL_RenderCopy(renderer_.get(), texture.get(), nullptr, &to);
}

void Picture::write(TTF_Font* font, const std::string& text, int x, int y, SDL_Color color, int wrap) {
  if (!text.empty()) place(*written(font, text, color, wrap), x, y);
}

// Its point is at x, y.
void Picture::draw_bubble(const std::string& text, int x, int y) {
  const auto surface = written(normal_.get(), text, ink, 250);
  const int height = surface->h + 20, top = y - std::min(height / 2, 60);
  fill({x + 12, top, 270, height}, cream);
  for (int i = 0; i < 12; ++i) fill({x + i, y - i / 2, 1, i}, cream);
  place(*surface, x + 22, top + 10);
}

void Picture::draw_face(const std::string& mood, int x, int y) {
  const int brow = mood == "angry" ? 4 : mood == "afraid" || mood == "sad" ? -4 : 0;
  for (const int side : {-1, 1}) {
    disc(x + side * 11, y - 4, mood == "afraid" || mood == "curious" ? 5 : 3, ink);
    for (int i = 0; i < 12; ++i) fill({x + side * (5 + i), y - 15 + brow * (6 - i) / 6, 1, 3}, ink);
  }
  for (int i = -10; i <= 10; ++i) {
    const int curve = i * i / 14, dy = mood == "merry" ? -curve : mood == "angry" || mood == "sad" ? curve : 0;
    fill({x + i, y + 15 + (mood == "merry" ? 6 : 0) + dy, 2, 3}, ink);
  }
}

void Picture::draw_guest(const Guest& guest, size_t place) {
  const int left = 20 + static_cast<int>(place % 3) * 418, top = 62 + static_cast<int>(place / 3) * 262;
  fill({left, top, 404, 250}, table);
  fill({left, top + 246, 404, 4}, {30, 20, 16, 255});
  const Line line = read_line(guest.json);
  const int x = left + 62, y = top + 92;
  disc(x, y + 86, 52, coats[place % std::size(coats)]);
  fill({x - 54, y + 100, 110, 42}, table);
  disc(x, y, 38, skin);
  draw_face(line.mood, x, y);
  write(normal_.get(), guest.name, left + 20, top + 12, cream);
  write(small_.get(), guest.speaking ? (line.say.empty() ? "thinks" : "speaks") : line.mood.empty() ? "" : line.action + ", " + line.mood, left + 20, top + 206, ember);
  if (!line.say.empty()) draw_bubble(line.say + (line.mood.empty() ? " _" : ""), left + 112, top + 96);
}

// Bars of the last frames' steps, and the budget's line.
void Picture::draw_times(const std::deque<Step>& steps, SDL_Rect area) {
  fill(area, {24, 17, 13, 255});
  if (steps.empty()) return;
  const uint32_t budget = steps.back().budget_us, full = 2 * budget;
  const size_t n = std::min(frames_shown, steps.size());
  std::vector<uint32_t> used;
  for (size_t i = 0; i < n; ++i) {
    const Step& step = steps[steps.size() - n + i];
    used.push_back(step.used_us);
    const int bar = static_cast<int>(std::min<uint64_t>(static_cast<uint64_t>(area.h) * step.used_us / full, static_cast<uint64_t>(area.h)));
    fill({area.x + static_cast<int>(i) * area.w / static_cast<int>(frames_shown), area.y + area.h - bar, std::max(1, area.w / static_cast<int>(frames_shown)), bar},
         step.kept() ? green : red);
  }
  fill({area.x, area.y + area.h / 2, area.w, 2}, ember);
  std::sort(used.begin(), used.end());
  char text[160];
  std::snprintf(text, sizeof text, "budget %.1f ms of a frame's 16.7; the last %zu steps: median %.2f, most %.2f ms", budget / 1e3, n, used[n / 2] / 1e3,
                used.back() / 1e3);
  write(small_.get(), text, area.x, area.y - 20, faint);
}

void Picture::draw(const Guests& guests, const std::deque<Step>& steps, const std::string& status) {
  fill({0, 0, width, height}, wood);
  write(large_.get(), "The Leaky Barrel", 20, 16, ember);
  write(small_.get(), status, 300, 26, faint);
  for (size_t i = 0; i < Guests::n; ++i) draw_guest(guests.all()[i], i);
  draw_times(steps, {640, 620, 620, 84});
  write(small_.get(), "Every line is JSON {say, mood, action}, by a constraint; six sessions talk at once.\nF5 saves in the middle of a sentence, F9 loads, Esc leaves.", 20, 632,
        faint, 600);
  SDL_RenderPresent(renderer_.get());
}

void Picture::save(const std::string& path) const {
  const Owned<SDL_Surface> surface(SDL_CreateRGBSurfaceWithFormat(0, width, height, 24, SDL_PIXELFORMAT_RGB24));
  if (!surface || SDL_RenderReadPixels(renderer_.get(), nullptr, SDL_PIXELFORMAT_RGB24, surface->pixels, surface->pitch) != 0) fail("cannot read the picture");
  if (IMG_SavePNG(surface.get(), path.c_str()) != 0) fail("cannot write '" + path + "'");
}

}  // namespace tavern
