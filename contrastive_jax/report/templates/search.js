'use strict';

// Each box searches the captions stored beside it. Captions enter the page as text, never as HTML.
const MATCHES = 8;
const HITS = 16;

function integers(base64) {
  return Int8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

function element(tag, kind, text = '') {
  const made = document.createElement(tag);
  made.className = kind;
  made.textContent = text;
  return made;
}

const spell = (number) => number.toLocaleString('en');

/** Indices of the captions with every word of the query; prefix matches come first. */
function find(captions, query) {
  const wanted = query.toLowerCase().trim();
  const words = wanted.split(/\s+/);
  if (!wanted) return captions.map((_, index) => index);
  return captions
    .map((caption, index) => [caption.toLowerCase(), index])
    .filter(([caption]) => words.every((word) => caption.includes(word)))
    .sort(([a], [b]) => b.startsWith(wanted) - a.startsWith(wanted) || a.length - b.length)
    .map(([, index]) => index);
}

/** Pairs of cosine and image, sorted by decreasing cosine with a caption. */
function rank(stored, caption) {
  const { image, text, dimension, unit, own } = stored;
  return own
    .map((_, index) => {
      let product = 0;
      for (let k = 0; k < dimension; k++) {
        product += image[index * dimension + k] * text[caption * dimension + k];
      }
      return [product * unit, index];
    })
    .sort(([a], [b]) => b - a);
}

function open(box) {
  const stored = JSON.parse(box.querySelector('script').textContent);
  stored.image = integers(stored.image);
  stored.text = integers(stored.text);
  const [input, matches, said, hits] = ['input', '.matches', '.said', '.hits'].map((part) =>
    box.querySelector(part),
  );
  const sheet = new Image();

  function hit([cosine, index], caption) {
    const { own, captions, side, columns } = stored;
    const right = own[index] === caption;
    const item = element('li', right ? 'right' : 'wrong');
    const canvas = element('canvas', '');
    canvas.width = canvas.height = side;
    canvas.setAttribute('role', 'img');
    canvas.setAttribute('aria-label', captions[own[index]]);
    const [x, y] = [(index % columns) * side, Math.floor(index / columns) * side];
    canvas.getContext('2d').drawImage(sheet, x, y, side, side, 0, 0, side, side);
    const value = cosine.toFixed(2).replace('-', '−');
    item.append(
      canvas,
      element('p', 'note', `${right ? '✓' : '✗'} ${value}`),
      element('p', 'name', captions[own[index]]),
    );
    return item;
  }

  function show(caption) {
    for (const button of matches.children) {
      button.setAttribute('aria-pressed', String(Number(button.dataset.caption) === caption));
    }
    const ranked = rank(stored, caption);
    const position = ranked.findIndex(([, index]) => stored.own[index] === caption) + 1;
    const where = position === 1 ? 'first' : `at rank ${spell(position)}`;
    said.replaceChildren('Nearest to ', element('b', '', stored.captions[caption]));
    said.append(`; the first image of this caption is ${where} of ${spell(ranked.length)}.`);
    hits.replaceChildren(...ranked.slice(0, HITS).map((pair) => hit(pair, caption)));
  }

  function search() {
    const found = find(stored.captions, input.value);
    const offered = found.slice(0, MATCHES).map((caption) => {
      const button = element('button', '', stored.captions[caption]);
      button.type = 'button';
      button.dataset.caption = caption;
      button.addEventListener('click', () => show(caption));
      return button;
    });
    matches.replaceChildren(...offered);
    if (found.length) {
      show(found[0]);
    } else {
      hits.replaceChildren();
      said.textContent = 'No caption contains these words.';
    }
  }

  function follow() {
    const asked = new URLSearchParams(location.hash.slice(1)).get('q');
    if (asked !== null) {
      input.value = asked;
      search();
    }
  }

  input.addEventListener('input', search);
  window.addEventListener('hashchange', follow);
  sheet.addEventListener('load', () => {
    search();
    follow();
  });
  sheet.src = stored.tiles;
}

document.querySelectorAll('.search').forEach(open);
