"use strict";
(() => {
  const element = (id) => document.getElementById(id);
  const facts = JSON.parse(element("facts").textContent);
  const { reviewed: documents, labels, multi } = facts;
  const KEY = `label-corpus ${facts.sample}`;
  const KEYS = 9; // labels with a digit
  const BEST = 6; // labels of a list that does not hold all
  const SHORT = 240; // characters of a text in larger letters
  const MAX_UNDO = 1000;
  const MAX_FOUND = 300; // labels in the list below the filter
  const isLong = labels.length > KEYS;
  const known = new Set(labels);

  // answers: {document: {label, at}}, where a label is null if the document is skipped; history: [document, answer before]
  const empty = { at: 0, answers: {}, history: [] };
  let state = load() ?? empty;
  let drafts = {}; // {document: set of labels that is not confirmed yet}
  let found = []; // labels in the list below the filter
  let marked = -1; // of these, by the arrow keys

  function load() {
    try {
      const saved = JSON.parse(localStorage.getItem(KEY));
      return saved && { ...empty, ...saved, at: Math.min(saved.at ?? 0, documents.length - 1) };
    } catch {
      return null;
    }
  }

  function save() {
    try {
      localStorage.setItem(KEY, JSON.stringify(state));
      element("unsaved").hidden = true;
    } catch {
      element("unsaved").hidden = false;
    }
  }

  const answerOf = (index) => state.answers[index];
  const isReviewed = (index) => answerOf(index) !== undefined && answerOf(index).label !== null;
  const isSkipped = (index) => answerOf(index)?.label === null;
  const asText = (label) => (typeof label === "string" ? label : label.join(", ") || "no label");

  function selected(index) {
    const answer = answerOf(index)?.label;
    return drafts[index] ?? new Set(answer ?? documents[index].predicted);
  }

  /** The labels of the list beside a document: all, or the predicted, the best and the chosen ones. */
  function choices(index) {
    const one = documents[index];
    const scores = new Map(one.top);
    if (!multi && !scores.has(one.predicted)) scores.set(one.predicted, one.score);
    let names = labels;
    if (isLong) {
      const chosen = multi ? [...selected(index)] : [answerOf(index)?.label].filter((label) => label);
      names = [...new Set([].concat(one.predicted, one.top.map(([label]) => label)))].filter((label) => known.has(label));
      const further = chosen.filter((label) => !names.slice(0, BEST).includes(label));
      names = [...names.slice(0, BEST), ...further];
    }
    return names.map((name) => ({ name, score: scores.get(name) }));
  }

  function made(tag, className, text) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  }

  function labelButton({ name, score }, number, index) {
    const predicted = documents[index].predicted;
    const isPredicted = multi ? predicted.includes(name) : predicted === name;
    const isChosen = multi ? selected(index).has(name) : answerOf(index)?.label === name;
    const button = made("button", `label${isPredicted ? " predicted" : ""}${isChosen ? " chosen" : ""}`);
    button.type = "button";
    button.dataset.label = name;
    if (multi || isChosen) button.setAttribute("aria-pressed", String(isChosen));
    if (number <= KEYS) button.append(made("kbd", "", String(number)));
    const text = made("span", "name");
    const words = made("span");
    words.dir = "auto";
    words.append(...name.split(/(?<=[_/.:-])/).flatMap((word) => [word, made("wbr")]));
    text.append(words);
    if (isPredicted) text.append(made("span", "mark", "predicted"));
    button.append(text);
    if (score !== undefined) button.append(made("span", "number", score.toFixed(3)));
    if (score >= 0 && score <= 1) button.style.setProperty("--share", `${100 * score}%`);
    if (isPredicted && !multi) button.append(made("kbd", "", "⏎"));
    if (isChosen) button.append(made("span", "", "✓"));
    return button;
  }

  function show() {
    const index = state.at;
    const one = documents[index];
    element("place").textContent = `Document ${index + 1} of ${documents.length}`;
    element("stratum").textContent = facts.strata[one.stratum].name;
    const status = element("status");
    status.hidden = answerOf(index) === undefined;
    status.textContent = isSkipped(index) ? "skipped" : "reviewed";
    status.classList.toggle("done", isReviewed(index));
    const texts = one.texts.flatMap((text, number) => {
      const paragraph = made("p", text.length < SHORT ? "short" : "", text);
      paragraph.dir = "auto";
      return one.texts.length > 1 ? [made("h3", "", facts.text_columns[number]), paragraph] : [paragraph];
    });
    element("texts").replaceChildren(...texts);
    element("texts").scrollTop = 0;
    element("source").textContent = `row ${one.row} of ${facts.sources[one.source]}`;
    showLabels();
    showCounts();
    element("back").disabled = index === 0;
    element("next").disabled = index === documents.length - 1;
    element("undo").disabled = state.history.length === 0;
  }

  function showLabels() {
    const index = state.at;
    const one = documents[index];
    const predicted = multi || known.has(one.predicted) ? "" : `Predicted: ${one.predicted}, ${one.score.toFixed(3)}. `;
    element("question").textContent = `${predicted}Which ${multi ? "labels are" : "label is"} right?`;
    element("choices").replaceChildren(...choices(index).map((choice, place) => labelButton(choice, place + 1, index)));
    element("confirm").hidden = !multi;
  }

  function showCounts() {
    const answers = Object.values(state.answers);
    const skipped = answers.filter((answer) => answer.label === null).length;
    const done = answers.length - skipped;
    const number = (count) => count.toLocaleString("en");
    element("count").replaceChildren(made("b", "", number(done)), ` of ${number(documents.length)} reviewed`);
    element("skipped").hidden = skipped === 0;
    element("skipped").textContent = `${number(skipped)} skipped`;
    const left = documents.length - answers.length;
    element("left").textContent = left ? `${number(left)} left` : "";
    element("bar-reviewed").style.width = `${(100 * done) / documents.length}%`;
    element("bar-skipped").style.width = `${(100 * skipped) / documents.length}%`;
    element("bar").setAttribute("aria-valuemax", documents.length);
    element("bar").setAttribute("aria-valuenow", done);
    element("export").disabled = done === 0;
    element("done").hidden = left > 0;
    if (left === 0) {
      const right = documents.filter((one, index) => isReviewed(index) && isSame(one.predicted, answerOf(index).label)).length;
      const verdict = done ? ` The prediction was right in ${number(right)} of ${number(done)}.` : "";
      element("done-text").textContent = `All documents are reviewed or skipped.${verdict} Export downloads the result.`;
    }
  }

  const isSame = (one, other) => String([].concat(one).sort()) === String([].concat(other).sort());

  function say(text) {
    element("live").textContent = text;
  }

  function goTo(index, before = "") {
    if (index < 0 || index >= documents.length) return;
    state.at = index;
    save();
    clearFilter();
    show();
    if (document.activeElement?.closest("#choices, #find")) element("card").focus({ preventScroll: true });
    say(`${before}Document ${index + 1} of ${documents.length}, predicted ${asText(documents[index].predicted)}`);
  }

  /** Records an answer, or null for a skip, and goes to the next document without one. */
  function record(label) {
    const index = state.at;
    const focused = document.activeElement?.closest("#choices, #find, #confirm");
    state.history.push([index, answerOf(index) ?? null]);
    state.history = state.history.slice(-MAX_UNDO);
    state.answers[index] = { label, at: new Date().toISOString().replace(/\.\d+Z$/, "Z") };
    delete drafts[index];
    const open = (place) => answerOf(place) === undefined;
    const order = documents.map((_, place) => (index + 1 + place) % documents.length);
    goTo(order.find(open) ?? index, `${label === null ? "Skipped" : asText(label)}. `);
    if (focused) element("card").focus({ preventScroll: true }); // where the keys of this page are heard
  }

  function undo() {
    const last = state.history.pop();
    if (last === undefined) return;
    const [index, before] = last;
    if (before === null) delete state.answers[index];
    else state.answers[index] = before;
    delete drafts[index];
    goTo(index, "Undone. ");
  }

  function choose(label) {
    if (!multi) {
      record(label);
      return;
    }
    const chosen = new Set(selected(state.at));
    if (!chosen.delete(label)) chosen.add(label);
    drafts[state.at] = chosen;
    const wasInside = document.activeElement?.dataset.label;
    showLabels();
    if (wasInside !== undefined) [...element("choices").children].find((one) => one.dataset.label === wasInside)?.focus();
    say(`${label} ${chosen.has(label) ? "added" : "removed"}`);
  }

  function confirm() {
    const { predicted } = documents[state.at];
    if (multi) record(labels.filter((label) => selected(state.at).has(label)));
    else if (known.has(predicted)) record(predicted);
    else say(`${predicted} is no label to confirm; choose one`);
  }

  const plain = (text) => text.toLowerCase().replace(/[_-]+/g, " ");

  function showFound() {
    const asked = plain(element("filter").value.trim());
    const hits = labels.filter((label) => plain(label).includes(asked));
    found = [...hits.filter((label) => plain(label).startsWith(asked)), ...hits.filter((label) => !plain(label).startsWith(asked))];
    found = found.slice(0, MAX_FOUND);
    marked = asked && found.length ? 0 : -1;
    element("found").replaceChildren(
      ...found.map((label, place) => {
        const option = made("li", "", label);
        option.id = `label-${place}`;
        option.dir = "auto";
        option.setAttribute("role", "option");
        return option;
      }),
    );
    mark(marked);
  }

  function mark(place) {
    marked = place;
    [...element("found").children].forEach((option, number) => option.setAttribute("aria-selected", String(number === place)));
    const option = element("found").children[place];
    if (option) {
      element("filter").setAttribute("aria-activedescendant", option.id);
      option.scrollIntoView({ block: "nearest" });
    } else element("filter").removeAttribute("aria-activedescendant");
  }

  function clearFilter() {
    if (!isLong || element("filter").value === "") return;
    element("filter").value = "";
    showFound();
  }

  function onFilterKey(event) {
    if (event.key === "Escape") {
      clearFilter();
      element("card").focus({ preventScroll: true });
    } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      const step = event.key === "ArrowDown" ? 1 : -1;
      if (found.length) mark(Math.max(0, Math.min(found.length - 1, marked + step)));
      event.preventDefault();
    } else if (event.key === "Enter" && !event.repeat) {
      if (found[marked] !== undefined) choose(found[marked]);
      if (multi) clearFilter();
      event.preventDefault();
    }
  }

  function onKey(event) {
    if (event.isComposing || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (event.target === element("filter")) {
      onFilterKey(event);
      return;
    }
    const isOwn = event.target.closest("button, a, summary, input") && [" ", "Enter"].includes(event.key);
    if (isOwn || event.target.closest("textarea, select") || !element("shortcuts").checked) return;
    const scroll = { ArrowDown: 60, ArrowUp: -60 }[event.key];
    if (scroll !== undefined) {
      const texts = element("texts");
      if (texts.scrollHeight > texts.clientHeight) texts.scrollBy(0, scroll);
      else return;
    } else if (event.key === "ArrowRight") goTo(state.at + 1);
    else if (event.key === "ArrowLeft") goTo(state.at - 1);
    else if (event.repeat) return; // a key that is held answers once
    else if (event.key === "Enter" || event.key === " ") confirm();
    else if (event.key === "u") undo();
    else if (event.key === "s") record(null);
    else if (isLong && (event.key === "/" || event.key === "0")) element("filter").focus();
    else if (/^[1-9]$/.test(event.key)) {
      const choice = choices(state.at)[Number(event.key) - 1];
      if (choice) choose(choice.name);
    } else return;
    event.preventDefault();
  }

  /** The reviewed documents in the format of jobs/README.md, "Reviewing labels". */
  function exported() {
    return documents.flatMap((one, index) => {
      if (!isReviewed(index)) return [];
      const stratum = facts.strata[one.stratum];
      const line = {
        sample: facts.sample,
        source_file: facts.sources[one.source],
        source_row: one.row,
        text: one.texts[0],
        ...(one.texts.length > 1 && { text_pair: one.texts[1] }),
        label: answerOf(index).label,
        predicted: one.predicted,
        score: one.score,
        stratum: stratum.name,
        stratum_documents: stratum.documents,
        stratum_sampled: stratum.sampled,
        documents: facts.documents,
        model: facts.model,
        reviewed_at: answerOf(index).at,
      };
      return [`${JSON.stringify(line)}\n`];
    });
  }

  function download() {
    const lines = exported();
    const link = made("a");
    link.href = URL.createObjectURL(new Blob(lines, { type: "application/jsonl" }));
    link.download = `${facts.name}.jsonl`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    say(`${lines.length} reviewed documents exported`);
  }

  async function take(file) {
    const places = new Map(documents.map((one, index) => [`${one.row} ${facts.sources[one.source]}`, index]));
    let taken = 0;
    let others = 0;
    for (const line of (await file.text()).split("\n").filter((text) => text.trim())) {
      let one = {};
      try {
        one = JSON.parse(line) ?? {};
      } catch {
        // counted below
      }
      const index = one.sample === facts.sample ? places.get(`${one.source_row} ${one.source_file}`) : undefined;
      const isRight = multi ? Array.isArray(one.label) && one.label.every((label) => known.has(label)) : known.has(one.label);
      if (index === undefined || !isRight) others += 1;
      else {
        state.history.push([index, answerOf(index) ?? null]);
        state.answers[index] = { label: one.label, at: String(one.reviewed_at) };
        taken += 1;
      }
    }
    state.history = state.history.slice(-MAX_UNDO);
    drafts = {};
    save();
    show();
    const rest = others ? `; ${others} lines are of another review, or no answers` : "";
    element("left").textContent += ` · ${taken} imported${rest}`;
    say(`${taken} imported${rest}`);
  }

  document.addEventListener("keydown", onKey);
  element("choices").addEventListener("click", (event) => {
    const label = event.target.closest("button")?.dataset.label;
    if (label !== undefined) choose(label);
  });
  element("found").addEventListener("click", (event) => {
    const option = event.target.closest("li");
    if (option) choose(option.textContent);
  });
  element("confirm").addEventListener("click", confirm);
  element("back").addEventListener("click", () => goTo(state.at - 1));
  element("next").addEventListener("click", () => goTo(state.at + 1));
  element("undo").addEventListener("click", undo);
  element("skip").addEventListener("click", () => record(null));
  element("export").addEventListener("click", download);
  element("import").addEventListener("click", () => element("file").click());
  element("file").addEventListener("change", async (event) => {
    if (event.target.files.length) await take(event.target.files[0]);
    event.target.value = "";
  });
  element("skipped").addEventListener("click", () => {
    const order = documents.map((_, place) => (state.at + 1 + place) % documents.length);
    goTo(order.find(isSkipped) ?? state.at);
  });
  if (isLong) {
    element("find").hidden = false;
    element("filter-name").textContent = `Another of the ${labels.length.toLocaleString("en")} labels`;
    element("filter").addEventListener("input", showFound);
    element("find").addEventListener("focusin", () => element("filter").setAttribute("aria-expanded", "true"));
    element("find").addEventListener("focusout", () => element("filter").setAttribute("aria-expanded", "false"));
    element("filter").addEventListener("focus", () => {
      if (matchMedia("(max-width: 56rem)").matches) element("find").scrollIntoView(); // above a keyboard on the screen
    });
    showFound();
  }
  window.addEventListener("storage", (event) => {
    if (event.key !== KEY) return; // the page is open in another tab, too
    state = load() ?? { ...empty, answers: {}, history: [] };
    show();
  });
  save();
  show();
})();
