/** The accepted objects of one photo, with undo and redo, and what the service is told of them. Pure: no DOM. */

/**
 * @typedef {object} AcceptedObject never changed in place, so that lists can be compared and undone
 * @property {number} category
 * @property {number | null} id given by the service when it was saved
 * @property {{embedding_id: string, logits_id: string} | null} source the model's answer it came from
 * @property {{size: [number, number], counts: string} | null} segmentation as the service saved it
 * @property {number | null} score
 * @property {{rle: object}} mask what is drawn
 * @property {object} [step] the prompt it came from, to be asked again where the service has forgotten it
 */

export class ObjectList {
  /** @param {AcceptedObject[]} objects as they are on the disk */
  constructor(objects = []) {
    this.past = [];
    this.present = objects;
    this.future = [];
    this.saved = new Set(objects.map((object) => object.id));
  }

  /** @param {object} [extra] to come back with the list that is left behind */
  #change(objects, extra = null) {
    this.past.push({ objects: this.present, extra });
    this.present = objects;
    this.future = [];
  }

  /** @param {object} [extra] what an undo gives back besides: the prompts that made the object */
  add(object, extra) {
    this.#change([...this.present, object], extra);
  }

  remove(index) {
    if (index < 0 || index >= this.present.length) return false;
    this.#change(this.present.toSpliced(index, 1));
    return true;
  }

  recategorise(index, category) {
    if (this.present[index].category === category) return false;
    this.#change(this.present.with(index, { ...this.present[index], category }));
    return true;
  }

  get canUndo() {
    return this.past.length > 0;
  }

  get canRedo() {
    return this.future.length > 0;
  }

  /** @returns {object | null} the `extra` of the change that was undone */
  undo() {
    if (!this.canUndo) return null;
    const { objects, extra } = this.past.pop();
    this.future.push({ objects: this.present, extra });
    this.present = objects;
    return extra;
  }

  redo() {
    if (!this.canRedo) return;
    const { objects, extra } = this.future.pop();
    this.past.push({ objects: this.present, extra });
    this.present = objects;
  }

  /** Something else happened: what was undone does not come back over it. */
  forgetRedo() {
    this.future = [];
  }

  /** What PUT /annotations/photos/{key} takes for the present list. */
  body() {
    return this.present.map((object) => {
      const category = { category_id: object.category };
      if (object.id !== null && this.saved.has(object.id)) return { ...category, id: object.id };
      if (object.segmentation) {
        const score = object.score === null ? {} : { score: object.score };
        return { ...category, segmentation: object.segmentation, ...score };
      }
      return { ...category, ...object.source };
    });
  }

  /**
   * Take over ids and run lengths from the service's answer.
   *
   * @param {AcceptedObject[]} sent the list as it was when the body was made
   * @param {object[]} answered the answer's objects, in the same order
   */
  settle(sent, answered) {
    this.saved = new Set(answered.map((object) => object.id));
    const known = new Map(sent.map((object, i) => [object, answered[i]]));
    const made = new Map();
    const update = (object) => {
      const answer = known.get(object);
      if (!answer) return object;
      if (!made.has(object)) {
        const { id, segmentation, score } = answer;
        made.set(object, { ...object, id, segmentation, score });
      }
      return made.get(object);
    };
    this.present = this.present.map(update);
    for (const step of [...this.past, ...this.future]) step.objects = step.objects.map(update);
  }
}

/** Colours of categories by their place in the list: apart from each other, and from the blue of the prompt. */
export const COLOURS = [
  "#ffb000", "#18c29c", "#e8467c", "#8c6cff", "#7bd000", "#ff6a3d", "#00b4e0", "#d06be0", "#c2a36b",
];

export function colourOf(categories, id) {
  const index = categories.findIndex((category) => category.id === id);
  return COLOURS[Math.max(0, index) % COLOURS.length];
}
