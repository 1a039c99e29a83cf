// SPDX-License-Identifier: Apache-2.0
// The tavern's window: the guests with what they say, and the frames' times.
#pragma once
#include <SDL.h>
#include <SDL_ttf.h>

#include <deque>
#include <memory>
#include <string>

#include "guests.h"

namespace tavern {

// What went wrong in SDL.
[[noreturn]] void fail(const std::string& what);

class Picture {
 public:
  static constexpr int width = 1280, height = 720;
  explicit Picture(const std::string& font);
  void draw(const Guests& guests, const std::deque<Step>& steps, const std::string& status);
  void save(const std::string& path) const;  // as PNG

 private:
  struct Free {
    void operator()(SDL_Window* p) const { SDL_DestroyWindow(p); }
    void operator()(SDL_Renderer* p) const { SDL_DestroyRenderer(p); }
    void operator()(TTF_Font* p) const { TTF_CloseFont(p); }
    void operator()(SDL_Surface* p) const { SDL_FreeSurface(p); }
    void operator()(SDL_Texture* p) const { SDL_DestroyTexture(p); }
  };
  template <class T>
  using Owned = std::unique_ptr<T, Free>;

  void fill(SDL_Rect rect, SDL_Color color);
  void disc(int x, int y, int radius, SDL_Color color);
  // wrap 0: one line.
  void write(TTF_Font* font, const std::string& text, int x, int y, SDL_Color color, int wrap = 0);
  void draw_bubble(const std::string& text, int x, int y);
  Owned<SDL_Surface> written(TTF_Font* font, const std::string& text, SDL_Color color, int wrap) const;
  void place(SDL_Surface& surface, int x, int y);
  void draw_guest(const Guest& guest, size_t place);
  void draw_face(const std::string& mood, int x, int y);
  void draw_times(const std::deque<Step>& steps, SDL_Rect area);

  Owned<SDL_Window> window_;
  Owned<SDL_Renderer> renderer_;
  Owned<TTF_Font> small_, normal_, large_;
};

}  // namespace tavern
