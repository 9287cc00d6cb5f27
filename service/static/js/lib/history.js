/** Prompts of one photo, with undo and redo. Pure: no DOM. */

/**
 * @typedef {object} Step one state of the prompt and the answer to it
 * @property {[number, number][]} points in photo pixels
 * @property {(0 | 1)[]} labels 1 product, 0 background
 * @property {[number, number, number, number] | null} box
 * @property {Step | null} parent the step whose chosen mask this one refines
 * @property {object | null} answer of POST /embeddings/{id}/segment
 * @property {number} chosen index of the mask that counts
 * @property {number} epoch of the embedding that answered; another one means: ask again
 * @property {number} unseen 0, or one more than the points that nobody drew: those and the box are not shown
 */

/** The step that follows `from` (null: the first one) when a point is added. */
export function withPoint(from, point, label) {
  return {
    points: [...(from?.points ?? []), point],
    labels: [...(from?.labels ?? []), label],
    box: from?.box ?? null,
    parent: from,
    answer: null,
    chosen: 0,
    epoch: -1,
    unseen: from?.unseen ?? 0,
  };
}

/** The step of a new box: it starts afresh, since points of another object would contradict it. */
export function withBox(box) {
  return { points: [], labels: [], box, parent: null, answer: null, chosen: 0, epoch: -1, unseen: 0 };
}

/** The step of prompts that come from elsewhere, as from the booth's plate. */
export function withPrompt({ points, labels, box }) {
  const unseen = points.length + 1; // more than none, even if there is but a box
  return { points, labels, box, parent: null, answer: null, chosen: 0, epoch: -1, unseen };
}

/**
 * The question to ask for a step: three candidates for a lone click and a box that was drawn, else one refined mask, as
 * SAM's demo does. The best of a box's three is seldom worse than its one mask, and small models often need it.
 */
export function question(step) {
  const lone = !step.parent && !step.unseen && step.points.length + (step.box ? 1 : 0) === 1;
  const body = { multimask: lone, mask_max_side: 1024 }; // the page draws screen pixels
  if (step.points.length) Object.assign(body, { points: step.points, labels: step.labels });
  if (step.box) body.box = step.box;
  const before = step.parent?.answer?.masks[step.parent.chosen];
  if (before?.logits_id) body.mask_input = before.logits_id;
  return body;
}

/** Indices of a step's masks, the best score first. */
export function byScore(step) {
  const masks = step?.answer?.masks ?? [];
  return masks.map((_, i) => i).sort((a, b) => masks[b].iou_prediction - masks[a].iou_prediction || a - b);
}

export class History {
  constructor() {
    this.past = [];
    this.present = null;
    this.future = [];
  }

  push(step) {
    this.past.push(this.present);
    this.present = step;
    this.future = [];
  }

  /** Without prompts again; can be undone. */
  clear() {
    if (this.present) this.push(null);
  }

  get canUndo() {
    return this.past.length > 0;
  }

  get canRedo() {
    return this.future.length > 0;
  }

  undo() {
    if (!this.canUndo) return;
    this.future.push(this.present);
    this.present = this.past.pop();
  }

  redo() {
    if (!this.canRedo) return;
    this.past.push(this.present);
    this.present = this.future.pop();
  }
}
